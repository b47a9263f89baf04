#include "kernels/cuda/rows_cuda.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

#include "kernels/cpu_rows.h"
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gated_activation.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/merge_attention.h"

namespace osler {
namespace {

cuda::Matrix MatrixOf(const at::Tensor& x_TF) {
  return {const_cast<void*>(x_TF.const_data_ptr()), x_TF.stride(0)};
}

using CrossEntropyKernel = int (*)(const cuda::CrossEntropyRows*, void*);

// False: there is no kernel for this.
bool RunCrossEntropy(CrossEntropyKernel kernel, const at::Tensor& logits_CV,
                     const at::Tensor& targets_C, const SoftmaxTerms& terms,
                     const CrossEntropyOptions& options) {
  if (!HasElement(logits_CV)) return false;
  const cuda::CrossEntropyRows arguments{
      .logits = logits_CV.mutable_data_ptr(),
      .targets = targets_C.const_data_ptr<int64_t>(),
      .max = terms.max_T.mutable_data_ptr<float>(),
      .sum = terms.sum_T.mutable_data_ptr<float>(),
      .target = terms.target_T.mutable_data_ptr<float>(),
      .loss = nullptr,
      .rows = logits_CV.size(0),
      .begin = options.begin,
      .width = static_cast<int32_t>(logits_CV.size(1)),
      .soft_cap = static_cast<float>(options.soft_cap),
      .gradient_scale = static_cast<float>(options.gradient_scale),
      .element = CudaElement(logits_CV)};
  return Took(kernel(&arguments, CudaStreamOf(logits_CV)), "cross-entropy");
}

SoftmaxTerms EmptyTerms(const at::Tensor& logits_CV) {
  const auto numbers = logits_CV.options().dtype(SumTypeOf(logits_CV));
  const int64_t rows = logits_CV.size(0);
  return {at::empty({rows}, numbers), at::empty({rows}, numbers), at::empty({rows}, numbers)};
}

at::Tensor GatedActivationForwardCuda(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                      GateKind kind) {
  if (HasElement(gate_TF)) {
    const at::Tensor y_TF = at::empty(gate_TF.sizes(), gate_TF.options());
    const cuda::GatedForward arguments{.gate = MatrixOf(gate_TF),
                                       .up = MatrixOf(up_TF),
                                       .y = MatrixOf(y_TF),
                                       .rows = gate_TF.size(0),
                                       .width = static_cast<int32_t>(gate_TF.size(1)),
                                       .kind = kind,
                                       .element = CudaElement(gate_TF)};
    if (Took(osler_gated_forward(&arguments, CudaStreamOf(gate_TF)), "gated activation"))
      return y_TF;
  }
  return AtenRowKernels().gated(gate_TF, up_TF, kind);
}

GatedGradients GatedActivationBackwardCuda(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                           const at::Tensor& up_TF, GateKind kind) {
  if (HasElement(gate_TF)) {
    const GatedGradients out{at::empty(gate_TF.sizes(), gate_TF.options()),
                             at::empty(up_TF.sizes(), up_TF.options())};
    const cuda::GatedBackward arguments{.grad = MatrixOf(grad_TF),
                                        .gate = MatrixOf(gate_TF),
                                        .up = MatrixOf(up_TF),
                                        .grad_gate = MatrixOf(out.gate_TF),
                                        .grad_up = MatrixOf(out.up_TF),
                                        .rows = gate_TF.size(0),
                                        .width = static_cast<int32_t>(gate_TF.size(1)),
                                        .kind = kind,
                                        .element = CudaElement(gate_TF)};
    if (Took(osler_gated_backward(&arguments, CudaStreamOf(gate_TF)), "gated activation backward"))
      return out;
  }
  return AtenRowKernels().gated_backward(grad_TF, gate_TF, up_TF, kind);
}

SoftmaxTerms CrossEntropyTermsCuda(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                   const CrossEntropyOptions& options) {
  const SoftmaxTerms terms = EmptyTerms(logits_CV);
  if (RunCrossEntropy(osler_cross_entropy_terms, logits_CV, targets_C, terms, options))
    return terms;
  return AtenRowKernels().cross_entropy_terms(logits_CV, targets_C, options);
}

void CrossEntropyGradientCuda(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                              const SoftmaxTerms& whole, const CrossEntropyOptions& options) {
  if (RunCrossEntropy(osler_cross_entropy_gradient, logits_CV, targets_C, whole, options)) return;
  AtenRowKernels().cross_entropy_gradient(logits_CV, targets_C, whole, options);
}

SoftmaxTerms CrossEntropyCuda(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                              const CrossEntropyOptions& options) {
  const SoftmaxTerms terms = EmptyTerms(logits_CV);
  if (RunCrossEntropy(osler_cross_entropy, logits_CV, targets_C, terms, options)) return terms;
  return AtenRowKernels().cross_entropy(logits_CV, targets_C, options);
}

}  // namespace

const RowKernels& CudaRowKernels() {
  static const RowKernels kernels = {.norms = CudaNormKernels(),
                                     .gated = GatedActivationForwardCuda,
                                     .gated_backward = GatedActivationBackwardCuda,
                                     .cross_entropy_terms = CrossEntropyTermsCuda,
                                     .cross_entropy_gradient = CrossEntropyGradientCuda,
                                     .cross_entropy = CrossEntropyCuda};
  return kernels;
}

void MergeAttentionCuda(const AttentionOutput& part, const AttentionOutput& into) {
  TORCH_CHECK(into.out_THD.scalar_type() == at::kFloat,
              "parts of attention are merged in fp32 on a GPU");
  const cuda::MergeAttention arguments{.part_out = part.out_THD.const_data_ptr<float>(),
                                       .part_lse = part.lse_TH.const_data_ptr<float>(),
                                       .out = into.out_THD.mutable_data_ptr<float>(),
                                       .lse = into.lse_TH.mutable_data_ptr<float>(),
                                       .rows = into.lse_TH.numel(),
                                       .width = static_cast<int32_t>(into.out_THD.size(2))};
  TORCH_CHECK(
      Took(osler_merge_attention(&arguments, CudaStreamOf(into.out_THD)), "merging attention"),
      "no kernel merges attention of width ", into.out_THD.size(2));
}

void AddRowsCuda(at::Tensor& sum_VD, const at::Tensor& ids_T, const at::Tensor& rows_TD) {
  if (HasElement(sum_VD) && HasElement(rows_TD) && sum_VD.is_contiguous() && ids_T.numel() > 0) {
    const auto [ids, order] = at::sort(ids_T, /*stable=*/true, /*dim=*/0, /*descending=*/false);
    const at::Tensor rows = rows_TD.contiguous();
    const auto width = static_cast<int32_t>(rows.size(1));
    const at::Tensor workspace = at::empty({osler_embedding_workspace(rows.size(0), width)},
                                           rows.options().dtype(at::kFloat));
    const cuda::EmbeddingBackward arguments{.grad = rows.const_data_ptr(),
                                            .ids = ids.const_data_ptr<int64_t>(),
                                            .order = order.const_data_ptr<int64_t>(),
                                            .grad_weight = sum_VD.mutable_data_ptr(),
                                            .workspace = workspace.mutable_data_ptr<float>(),
                                            .tokens = rows.size(0),
                                            .begin = 0,
                                            .rows = sum_VD.size(0),
                                            .width = width,
                                            .scale = 1,
                                            .element = CudaElement(rows),
                                            .weight_element = CudaElement(sum_VD)};
    if (Took(osler_embedding_backward(&arguments, CudaStreamOf(sum_VD)), "embedding backward"))
      return;
  }
  sum_VD.index_add_(0, ids_T, rows_TD.to(sum_VD.scalar_type()));
}

}  // namespace osler
