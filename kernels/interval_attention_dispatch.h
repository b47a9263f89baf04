// Interval attention without autograd on whichever device the inputs are: the CPU's kernels, or
// CUDA's. docs: interval_attention.h, interval_attention_cpu.h.
#pragma once

#include "kernels/interval_attention_cpu.h"

namespace osler {

AttentionOutput IntervalAttentionForward(const IntervalAttentionInput& input);
// Over a part of the keys, for MergeAttention: out in the type of sums.
AttentionOutput IntervalAttentionPart(const IntervalAttentionInput& input);
IntervalAttentionGradients IntervalAttentionBackward(const AttentionOutput& grad,
                                                     const IntervalAttentionInput& input,
                                                     const AttentionOutput& output);
// The same in the type of sums.
IntervalAttentionGradients IntervalAttentionGradientSums(const AttentionOutput& grad,
                                                         const IntervalAttentionInput& input,
                                                         const AttentionOutput& output);

}  // namespace osler
