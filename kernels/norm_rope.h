// RMS normalisation of each query or key head followed by its rotation (the QK-norm of Gemma 3 and
// Qwen3), in one pass.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/norm_style.h"
#include "kernels/rope.h"

namespace osler {

// ApplyRope(RmsNorm(x_THD, weight_D, eps, style), tables): x_THD [T, H, D] (rows of D values dense,
// else it is copied), weight_D [D]; the result is contiguous, in x's dtype. The normalised value is
// rounded to x's dtype before it is rotated. Differentiable once through autograd; saves x, the
// weight, the tables and one number a head. The bits do not depend on the number of threads.
// Thread-safe.
at::Tensor NormRope(const at::Tensor& x_THD, const at::Tensor& weight_D, double eps,
                    NormStyle style, const RopeTables& tables);

}  // namespace osler
