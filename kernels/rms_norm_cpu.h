// The norms of rms_norm.h without autograd, on the CPU. Tensors are contiguous and share one dtype
// but for the weight.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu_isa.h"
#include "kernels/norm_style.h"

namespace osler {

struct NormOptions {
  double eps;
  NormStyle style;
  CpuIsa isa = BestCpuIsa();
};

struct NormOutput {
  at::Tensor y;
  at::Tensor inverse_rms;  // one a row, in the sums' dtype
  at::Tensor sum;          // AddRmsNormForward only
};
NormOutput RmsNormForward(const at::Tensor& x, const at::Tensor& weight_D, const NormOptions& norm);
NormOutput AddRmsNormForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm);
NormOutput RmsNormAddForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm);

struct NormInputs {
  at::Tensor x;  // what was normalised
  at::Tensor weight_D;
  at::Tensor inverse_rms;
};
enum class WeightGradient { kWanted, kSkipped };
struct NormGradients {
  at::Tensor x;         // of what was normalised, plus grad_sum where that is defined
  at::Tensor weight_D;  // undefined when skipped
};
NormGradients RmsNormBackward(const at::Tensor& grad, const at::Tensor& grad_sum,
                              const NormInputs& inputs, WeightGradient weight_gradient,
                              const NormOptions& norm);

}  // namespace osler
