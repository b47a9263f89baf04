// Root-mean-square layer normalisation (Zhang & Sennrich 2019), alone and fused with the residual
// addition before or after it.
//
// x is [..., D], weight_D is [D]; results have x's dtype (fp32, fp64 or bf16). Statistics and
// products are fp32 (fp64 for fp64), and values are rounded to x's dtype where a model that runs
// one operation after another rounds them. Differentiable once through autograd; what is saved is x
// (or the sum), the weight and one number a row. Thread-safe; every result has the same bits for
// any number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/norm_style.h"

namespace osler {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, double eps, NormStyle style);

// The next sublayer's input and the residual stream that goes past it (Llama, Qwen).
struct AddRmsNormOutput {
  at::Tensor sum;     // residual + x
  at::Tensor normed;  // RmsNorm(sum)
};
AddRmsNormOutput AddRmsNorm(const at::Tensor& residual, const at::Tensor& x,
                            const at::Tensor& weight_D, double eps, NormStyle style);

// residual + RmsNorm(x): a norm after the sublayer (Gemma).
at::Tensor RmsNormAdd(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight_D,
                      double eps, NormStyle style);

}  // namespace osler
