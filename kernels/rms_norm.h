// Root-mean-square layer normalisation (Zhang & Sennrich 2019).
#pragma once

#include <ATen/core/Tensor.h>

namespace osler {

// Gemma multiplies the normalised value by (1 + w) in fp32 before casting back; Llama casts back,
// then multiplies by w.
enum class NormStyle { kGemma, kPlain };

// x is [..., D], weight_D is [D]; the result has x's dtype. Statistics are in fp32 (fp64 for fp64
// input). Differentiable through autograd.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, double eps, NormStyle style);

}  // namespace osler
