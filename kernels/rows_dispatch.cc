#include "kernels/rows_dispatch.h"

#include "kernels/cuda/rows_cuda.h"

namespace osler::rows {

NormOutput RmsNormForward(const at::Tensor& x, const at::Tensor& weight_D,
                          const NormOptions& norm) {
  return x.is_cpu() ? osler::RmsNormForward(x, weight_D, norm)
                    : RmsNormForwardCuda(x, weight_D, norm);
}

NormOutput AddRmsNormForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm) {
  return x.is_cpu() ? osler::AddRmsNormForward(residual, x, weight_D, norm)
                    : AddRmsNormForwardCuda(residual, x, weight_D, norm);
}

NormOutput RmsNormAddForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm) {
  return x.is_cpu() ? osler::RmsNormAddForward(residual, x, weight_D, norm)
                    : RmsNormAddForwardCuda(residual, x, weight_D, norm);
}

NormGradients RmsNormBackward(const at::Tensor& grad, const at::Tensor& grad_sum,
                              const NormInputs& inputs, WeightGradient weight_gradient,
                              const NormOptions& norm) {
  return grad.is_cpu() ? osler::RmsNormBackward(grad, grad_sum, inputs, weight_gradient, norm)
                       : RmsNormBackwardCuda(grad, grad_sum, inputs, weight_gradient, norm);
}

at::Tensor RopeForward(const at::Tensor& x_THD, const RopeTables& tables) {
  return x_THD.is_cpu() ? RopeForwardCpu(x_THD, tables) : RopeForwardCuda(x_THD, tables);
}

at::Tensor RopeBackward(const at::Tensor& grad_THD, const RopeTables& tables) {
  return grad_THD.is_cpu() ? RopeBackwardCpu(grad_THD, tables) : RopeBackwardCuda(grad_THD, tables);
}

NormOutput NormRopeForward(const at::Tensor& x_THD, const at::Tensor& weight_D,
                           const RopeTables& tables, const NormOptions& norm) {
  return x_THD.is_cpu() ? NormRopeForwardCpu(x_THD, weight_D, tables, norm)
                        : NormRopeForwardCuda(x_THD, weight_D, tables, norm);
}

NormGradients NormRopeBackward(const at::Tensor& grad_THD, const NormInputs& inputs,
                               const RopeTables& tables, WeightGradient weight_gradient,
                               const NormOptions& norm) {
  return grad_THD.is_cpu() ? NormRopeBackwardCpu(grad_THD, inputs, tables, weight_gradient, norm)
                           : NormRopeBackwardCuda(grad_THD, inputs, tables, weight_gradient, norm);
}

at::Tensor GatedActivationForward(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                  GateKind kind) {
  return gate_TF.is_cpu() ? GatedActivationForwardCpu(gate_TF, up_TF, kind)
                          : GatedActivationForwardCuda(gate_TF, up_TF, kind);
}

GatedGradients GatedActivationBackward(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                       const at::Tensor& up_TF, GateKind kind) {
  return grad_TF.is_cpu() ? GatedActivationBackwardCpu(grad_TF, gate_TF, up_TF, kind)
                          : GatedActivationBackwardCuda(grad_TF, gate_TF, up_TF, kind);
}

SoftmaxTerms CrossEntropyTerms(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                               const CrossEntropyOptions& options) {
  return logits_CV.is_cpu() ? CrossEntropyTermsCpu(logits_CV, targets_C, options)
                            : CrossEntropyTermsCuda(logits_CV, targets_C, options);
}

void CrossEntropyGradient(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                          const SoftmaxTerms& whole, const CrossEntropyOptions& options) {
  if (logits_CV.is_cpu()) return CrossEntropyGradientCpu(logits_CV, targets_C, whole, options);
  CrossEntropyGradientCuda(logits_CV, targets_C, whole, options);
}

SoftmaxTerms CrossEntropy(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                          const CrossEntropyOptions& options) {
  if (logits_CV.is_cpu()) return CrossEntropyCpu(logits_CV, targets_C, options);
  return CrossEntropyCuda(logits_CV, targets_C, options);
}

}  // namespace osler::rows
