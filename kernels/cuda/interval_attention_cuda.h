// Interval attention on CUDA tensors without autograd: Osler's own kernels (attention.h), or ATen's
// operations for what they lack. The mask's ends are int32 CUDA tensors that CheckIntervals has
// passed on the CPU. Deterministic.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/interval_attention_cpu.h"

namespace osler {

// `out`: q's type, or that of sums.
AttentionOutput IntervalAttentionForwardCuda(const IntervalAttentionInput& input,
                                             at::ScalarType out);
// As IntervalAttentionBackwardCpu; `type` is that of the gradients: q's, or that of sums.
IntervalAttentionGradients IntervalAttentionBackwardCuda(const AttentionOutput& grad,
                                                         const IntervalAttentionInput& input,
                                                         const AttentionOutput& output,
                                                         at::ScalarType type);

// What a model asks of attention.
struct AttentionShape {
  int64_t heads = 0, key_heads = 0, width = 0;
  at::ScalarType dtype = at::kFloat;
  std::optional<int64_t> window;
  at::Device device = at::kCPU;
};
// Computes a small case of that shape, several documents and rows that see nothing, with the
// kernels that a run would get and by the reference. Throws c10::Error, with the largest error of
// each result, when they disagree. On the CPU: nothing.
void TestAttention(const AttentionShape& shape);

}  // namespace osler
