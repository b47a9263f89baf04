// Attention over parts of the keys to attention over all of them.
#pragma once

#include "kernels/interval_attention.h"

namespace osler {

// Adds the keys of `part` to those of `into`, in place: lse = log(e^lse₁ + e^lse₂) and
// out = (e^lse₁ out₁ + e^lse₂ out₂) / e^lse, in the tensors' own precision. Both are over the same
// queries and distinct keys; contiguous, all four tensors fp32 or all fp64 (a rounded out loses
// what the sum of parts keeps). A row that sees nothing in one part is the other's. Deterministic.
// Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv 1805.02867).
void MergeAttention(const AttentionOutput& part, const AttentionOutput& into);

}  // namespace osler
