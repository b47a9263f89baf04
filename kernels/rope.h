// Rotary position embedding (Su et al. 2021), half-split ("rotate_half") as Hugging Face models
// compute it.
#pragma once

#include <ATen/core/Tensor.h>

namespace osler {

struct RopeOptions {
  double theta = 10000;
  double factor = 1;  // linear scaling: positions are divided by it
};

// fp32 tables of shape [T, D] (both halves filled), computed in fp32 like the reference
// implementation.
struct RopeTables {
  at::Tensor cos_TD, sin_TD;
};
RopeTables MakeRopeTables(const at::Tensor& positions_T, int64_t head_dim,
                          const RopeOptions& options);

// Rotates x_THD ([T, H, D]) by the tables; the result has x's dtype. Differentiable through
// autograd.
at::Tensor ApplyRope(const at::Tensor& x_THD, const RopeTables& tables);

}  // namespace osler
