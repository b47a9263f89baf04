// The row kernels without autograd, as a table: those of the CPU, of CUDA, or ATen's operations.
// docs: the *_cpu.h header of each.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/gated_activation_cpu.h"
#include "kernels/linear_cross_entropy_cpu.h"
#include "kernels/norm_rope_cpu.h"
#include "kernels/rms_norm_cpu.h"

namespace osler {

struct NormKernels {
  NormOutput (*rms_norm)(const at::Tensor& x, const at::Tensor& weight_D, const NormOptions& norm);
  NormOutput (*add_rms_norm)(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm);
  NormOutput (*rms_norm_add)(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm);
  NormGradients (*rms_norm_backward)(const at::Tensor& grad, const at::Tensor& grad_sum,
                                     const NormInputs& inputs, WeightGradient weight_gradient,
                                     const NormOptions& norm);
  at::Tensor (*rope)(const at::Tensor& x_THD, const RopeTables& tables);
  at::Tensor (*rope_backward)(const at::Tensor& grad_THD, const RopeTables& tables);
  NormOutput (*norm_rope)(const at::Tensor& x_THD, const at::Tensor& weight_D,
                          const RopeTables& tables, const NormOptions& norm);
  NormGradients (*norm_rope_backward)(const at::Tensor& grad_THD, const NormInputs& inputs,
                                      const RopeTables& tables, WeightGradient weight_gradient,
                                      const NormOptions& norm);
};

struct RowKernels {
  NormKernels norms;
  at::Tensor (*gated)(const at::Tensor& gate_TF, const at::Tensor& up_TF, GateKind kind);
  GatedGradients (*gated_backward)(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                   const at::Tensor& up_TF, GateKind kind);
  SoftmaxTerms (*cross_entropy_terms)(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                      const CrossEntropyOptions& options);
  void (*cross_entropy_gradient)(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                 const SoftmaxTerms& whole, const CrossEntropyOptions& options);
  // Both, when the logits are those of the whole vocabulary.
  SoftmaxTerms (*cross_entropy)(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                const CrossEntropyOptions& options);
};

// Those of x's device.
const RowKernels& RowKernelsFor(const at::Tensor& x);

// Expressions of ATen's operations, on any device: what runs where a device has no kernel of its
// own for a type or shape, and a second opinion on those that exist. Each is its CPU kernel's
// arithmetic, with the same roundings; sums may be taken in another order.
const RowKernels& AtenRowKernels();

}  // namespace osler
