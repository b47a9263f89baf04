#include "kernels/linear_cross_entropy_cpu.h"

#include <ATen/ops/empty.h>

#include "kernels/cpu_rows.h"
#include "kernels/linear_cross_entropy_isa.h"

namespace osler {
namespace {

const CrossEntropyKernels& Kernels(const at::Tensor& logits, CpuIsa isa) {
  const auto i = static_cast<size_t>(ElementOf(logits));
  return SelectIsa(isa, portable::kCrossEntropyKernels[i], avx2::kCrossEntropyKernels[i],
                   avx512::kCrossEntropyKernels[i], avx512_bf16::kCrossEntropyKernels[i],
                   amx::kCrossEntropyKernels[i]);
}

CrossEntropyRows Rows(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                      const SoftmaxTerms& terms, const CrossEntropyOptions& options) {
  TORCH_CHECK(logits_CV.is_contiguous() && targets_C.is_contiguous(),
              "logits and targets must be contiguous");
  return {.logits = logits_CV.mutable_data_ptr(),
          .width = logits_CV.size(1),
          .targets = targets_C.const_data_ptr<int64_t>(),
          .begin = options.begin,
          .soft_cap = options.soft_cap,
          .max = terms.max_T.mutable_data_ptr(),
          .sum = terms.sum_T.mutable_data_ptr(),
          .target = terms.target_T.mutable_data_ptr(),
          .gradient_scale = options.gradient_scale};
}

SoftmaxTerms EmptyTerms(const at::Tensor& logits_CV) {
  const auto numbers = logits_CV.options().dtype(SumTypeOf(logits_CV));
  const int64_t rows = logits_CV.size(0);
  return {at::empty({rows}, numbers), at::empty({rows}, numbers), at::empty({rows}, numbers)};
}

}  // namespace

SoftmaxTerms CrossEntropyTermsCpu(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                  const CrossEntropyOptions& options) {
  SoftmaxTerms terms = EmptyTerms(logits_CV);
  const CrossEntropyRows in = Rows(logits_CV, targets_C, terms, options);
  const CrossEntropyKernels& kernels = Kernels(logits_CV, options.isa);
  ForRows(logits_CV.size(0), logits_CV.size(1),
          [&](int64_t from, int64_t to) { kernels.terms(in, from, to); });
  return terms;
}

void CrossEntropyGradientCpu(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                             const SoftmaxTerms& whole, const CrossEntropyOptions& options) {
  const CrossEntropyRows in = Rows(logits_CV, targets_C, whole, options);
  const CrossEntropyKernels& kernels = Kernels(logits_CV, options.isa);
  ForRows(logits_CV.size(0), logits_CV.size(1),
          [&](int64_t from, int64_t to) { kernels.gradient(in, from, to); });
}

SoftmaxTerms CrossEntropyCpu(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                             const CrossEntropyOptions& options) {
  SoftmaxTerms terms = EmptyTerms(logits_CV);
  const CrossEntropyRows in = Rows(logits_CV, targets_C, terms, options);
  const CrossEntropyKernels& kernels = Kernels(logits_CV, options.isa);
  ForRows(logits_CV.size(0), logits_CV.size(1), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) {
      kernels.terms(in, row, row + 1);
      kernels.gradient(in, row, row + 1);
    }
  });
  return terms;
}

}  // namespace osler
