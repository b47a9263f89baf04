// Attention under row-interval masks: query row i sees the keys [lo[i], hi[i]).
//
// Every mask training needs is of this form with non-decreasing ends (docs/design.md): causal,
// document packing, sliding window and their combinations. Nothing of size T×S exists.
// Differentiable through autograd; deterministic.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace osler {

// int32 tensors of shape [T] on the CPU; [lo, hi) indexes the keys given; both non-decreasing; lo =
// hi: sees nothing.
struct MaskIntervals {
  at::Tensor lo_T, hi_T;
};

// Causal attention inside each document of a packed sequence: lo is the document's start, hi is i +
// 1; with a window, a row also sees only keys j > i − window (the window counts the token itself).
// PRE: doc_starts ascending, doc_starts[0] == 0, all < length.
MaskIntervals CausalDocumentIntervals(const std::vector<int32_t>& doc_starts, int64_t length,
                                      std::optional<int64_t> window);

struct AttentionOptions {
  double scale = 1.0;  // of the scores before the softmax
};

// softmax(scale · q kᵀ over each row's interval) v → [T, H, D]. Query head h uses key head h / (H /
// K): GQA. q_THD is [T, H, D], k_SHD and v_SHD are [S, K, D] with H a multiple of K; all of one
// dtype (fp32, fp64, bf16). A row that sees nothing gives zeros.
at::Tensor IntervalAttention(const at::Tensor& q_THD, const at::Tensor& k_SHD,
                             const at::Tensor& v_SHD, const MaskIntervals& mask,
                             const AttentionOptions& options);

}  // namespace osler
