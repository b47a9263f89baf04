// The row kernels on CUDA tensors, without autograd: Osler's own (rms_norm.h, norm_rope.h, …), or
// ATen's operations (kernels/rows_aten.h) for types and shapes that they lack. Arguments are as the
// CPU's: see the *_cpu.h header of each. Deterministic.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/gated_activation_cpu.h"
#include "kernels/interval_attention.h"
#include "kernels/linear_cross_entropy_cpu.h"
#include "kernels/norm_rope_cpu.h"
#include "kernels/rms_norm_cpu.h"

namespace osler {

NormOutput RmsNormForwardCuda(const at::Tensor& x, const at::Tensor& weight_D,
                              const NormOptions& norm);
NormOutput AddRmsNormForwardCuda(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm);
NormOutput RmsNormAddForwardCuda(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm);
NormGradients RmsNormBackwardCuda(const at::Tensor& grad, const at::Tensor& grad_sum,
                                  const NormInputs& inputs, WeightGradient weight_gradient,
                                  const NormOptions& norm);

at::Tensor RopeForwardCuda(const at::Tensor& x_THD, const RopeTables& tables);
at::Tensor RopeBackwardCuda(const at::Tensor& grad_THD, const RopeTables& tables);
NormOutput NormRopeForwardCuda(const at::Tensor& x_THD, const at::Tensor& weight_D,
                               const RopeTables& tables, const NormOptions& norm);
NormGradients NormRopeBackwardCuda(const at::Tensor& grad_THD, const NormInputs& inputs,
                                   const RopeTables& tables, WeightGradient weight_gradient,
                                   const NormOptions& norm);

at::Tensor GatedActivationForwardCuda(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                      GateKind kind);
GatedGradients GatedActivationBackwardCuda(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                           const at::Tensor& up_TF, GateKind kind);

SoftmaxTerms CrossEntropyTermsCuda(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                   const CrossEntropyOptions& options);
void CrossEntropyGradientCuda(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                              const SoftmaxTerms& whole, const CrossEntropyOptions& options);
SoftmaxTerms CrossEntropyCuda(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                              const CrossEntropyOptions& options);

void MergeAttentionCuda(const AttentionOutput& part, const AttentionOutput& into);
// sum_VD[ids] += rows_TD, ids of one value in their order.
void AddRowsCuda(at::Tensor& sum_VD, const at::Tensor& ids_T, const at::Tensor& rows_TD);

}  // namespace osler
