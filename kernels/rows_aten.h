// The row kernels as expressions of ATen's operations, on any device: what runs where a device has
// no kernel of its own for a type or shape, and a second opinion on those that exist. Each is its
// CPU kernel's arithmetic, with the same roundings; sums may be taken in another order.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/gated_activation_cpu.h"
#include "kernels/linear_cross_entropy_cpu.h"
#include "kernels/norm_rope_cpu.h"
#include "kernels/rms_norm_cpu.h"

namespace osler {

NormOutput RmsNormForwardAten(const at::Tensor& x, const at::Tensor& weight_D,
                              const NormOptions& norm);
NormOutput AddRmsNormForwardAten(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm);
NormOutput RmsNormAddForwardAten(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm);
NormGradients RmsNormBackwardAten(const at::Tensor& grad, const at::Tensor& grad_sum,
                                  const NormInputs& inputs, WeightGradient weight_gradient,
                                  const NormOptions& norm);

at::Tensor RopeForwardAten(const at::Tensor& x_THD, const RopeTables& tables);
at::Tensor RopeBackwardAten(const at::Tensor& grad_THD, const RopeTables& tables);
NormOutput NormRopeForwardAten(const at::Tensor& x_THD, const at::Tensor& weight_D,
                               const RopeTables& tables, const NormOptions& norm);
NormGradients NormRopeBackwardAten(const at::Tensor& grad_THD, const NormInputs& inputs,
                                   const RopeTables& tables, WeightGradient weight_gradient,
                                   const NormOptions& norm);

at::Tensor GatedActivationForwardAten(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                      GateKind kind);
GatedGradients GatedActivationBackwardAten(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                           const at::Tensor& up_TF, GateKind kind);

SoftmaxTerms CrossEntropyTermsAten(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                   const CrossEntropyOptions& options);
void CrossEntropyGradientAten(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                              const SoftmaxTerms& whole, const CrossEntropyOptions& options);

}  // namespace osler
