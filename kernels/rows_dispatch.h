// The row kernels without autograd on whichever device their inputs are. docs: the *_cpu.h header
// of each.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/gated_activation_cpu.h"
#include "kernels/linear_cross_entropy_cpu.h"
#include "kernels/norm_rope_cpu.h"
#include "kernels/rms_norm_cpu.h"

namespace osler::rows {

NormOutput RmsNormForward(const at::Tensor& x, const at::Tensor& weight_D, const NormOptions& norm);
NormOutput AddRmsNormForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm);
NormOutput RmsNormAddForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm);
NormGradients RmsNormBackward(const at::Tensor& grad, const at::Tensor& grad_sum,
                              const NormInputs& inputs, WeightGradient weight_gradient,
                              const NormOptions& norm);

at::Tensor RopeForward(const at::Tensor& x_THD, const RopeTables& tables);
at::Tensor RopeBackward(const at::Tensor& grad_THD, const RopeTables& tables);
NormOutput NormRopeForward(const at::Tensor& x_THD, const at::Tensor& weight_D,
                           const RopeTables& tables, const NormOptions& norm);
NormGradients NormRopeBackward(const at::Tensor& grad_THD, const NormInputs& inputs,
                               const RopeTables& tables, WeightGradient weight_gradient,
                               const NormOptions& norm);

at::Tensor GatedActivationForward(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                  GateKind kind);
GatedGradients GatedActivationBackward(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                       const at::Tensor& up_TF, GateKind kind);

SoftmaxTerms CrossEntropyTerms(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                               const CrossEntropyOptions& options);
void CrossEntropyGradient(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                          const SoftmaxTerms& whole, const CrossEntropyOptions& options);
// Both, when the logits are those of the whole vocabulary.
SoftmaxTerms CrossEntropy(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                          const CrossEntropyOptions& options);

}  // namespace osler::rows
