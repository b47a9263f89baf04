// Attention under row-interval masks: query row i sees the keys [lo[i], hi[i]).
//
// Every mask training needs is of this form with non-decreasing ends (docs/design.md): causal,
// document packing, sliding window and their combinations. Nothing of size T×S exists.
// Differentiable through autograd. Deterministic: the same bits for any number of threads, on one
// machine (docs/attention.md).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"

namespace osler {

// int32 tensors of shape [T] on the device of the queries; [lo, hi) indexes the keys given; both
// non-decreasing; lo = hi: sees nothing. The CPU's kernels look at every value (CheckIntervals);
// whoever hands out copies on another device does so before.
struct MaskIntervals {
  at::Tensor lo_T, hi_T;
};

// Causal attention inside each document of a packed sequence: lo is the document's start, hi is i +
// 1; with a window, a row also sees only keys j > i − window (the window counts the token itself).
// PRE: doc_starts ascending, doc_starts[0] == 0, all < length.
MaskIntervals CausalDocumentIntervals(const std::vector<int32_t>& doc_starts, int64_t length,
                                      std::optional<int64_t> window);

struct AttentionOutput {
  at::Tensor out_THD;  // contiguous
  at::Tensor lse_TH;   // natural log-sum-exp of each row's scores; fp64 for fp64 inputs, else fp32
};

struct AttentionOptions {
  double scale = 1.0;  // of the scores before the softmax
  std::optional<double> soft_cap =
      std::nullopt;  // c > 0: scores x become c · tanh(x / c) (Gemma 2)
  // Not owned. An empty one is filled with the output; a filled one is the output of the same
  // inputs, made before, and is given again with a graph and without computing anything.
  AttentionOutput* memo = nullptr;
};

// What `make` makes, or the memo.
AttentionOutput MakeOrRecall(AttentionOutput* memo, absl::FunctionRef<AttentionOutput()> make);

// out = softmax(scale · q kᵀ over each row's interval) v → [T, H, D]. Query head h uses key head h
// / (H / K): GQA. q_THD is [T, H, D], k_SHD and v_SHD are [S, K, D] with H a multiple of K and D a
// multiple of 8 up to 256; all of one dtype (fp32, fp64, bf16), any strides (copied where the last
// dimension is not dense). bf16 is summed in fp32. A row that sees nothing gives zeros, an lse of
// −∞ and zero gradients. Gradients flow through both results; differentiating twice is an error.
// Throws c10::Error on other shapes, dtypes and masks. Thread-safe.
AttentionOutput IntervalAttentionWithLse(const at::Tensor& q_THD, const at::Tensor& k_SHD,
                                         const at::Tensor& v_SHD, const MaskIntervals& mask,
                                         const AttentionOptions& options);

at::Tensor IntervalAttention(const at::Tensor& q_THD, const at::Tensor& k_SHD,
                             const at::Tensor& v_SHD, const MaskIntervals& mask,
                             const AttentionOptions& options);

// Throws c10::Error unless these are inputs as above.
void CheckAttentionInput(const at::Tensor& q_THD, const at::Tensor& k_SHD, const at::Tensor& v_SHD,
                         const AttentionOptions& options);

}  // namespace osler
