// Softmax and cross-entropy of a chunk of logits, and their gradient in its place, on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/cpu_isa.h"
#include "kernels/linear_cross_entropy.h"

namespace osler {

struct CrossEntropyOptions {
  int64_t begin = 0;  // the first column's place in the vocabulary
  double soft_cap = 0;
  double gradient_scale = 1;
  CpuIsa isa = BestCpuIsa();
};

// logits_CV is contiguous, targets_C int64 and contiguous.
SoftmaxTerms CrossEntropyTermsCpu(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                  const CrossEntropyOptions& options);
// Overwrites the logits.
void CrossEntropyGradientCpu(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                             const SoftmaxTerms& whole, const CrossEntropyOptions& options);
// Both, when the logits are those of the whole vocabulary: a row is still in the cache for the
// second.
SoftmaxTerms CrossEntropyCpu(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                             const CrossEntropyOptions& options);

}  // namespace osler
