// RmsNorm without autograd. docs: rms_norm.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/rms_norm.h"

namespace osler {

struct RmsNormOutput {
  at::Tensor y;
  at::Tensor inverse_rms;  // [..., 1], in the statistics' dtype
};
RmsNormOutput RmsNormForward(const at::Tensor& x, const at::Tensor& weight_D, double eps,
                             NormStyle style);

struct RmsNormGradients {
  at::Tensor x, weight_D;
};
RmsNormGradients RmsNormBackward(const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& weight_D, const at::Tensor& inverse_rms,
                                 NormStyle style);

}  // namespace osler
