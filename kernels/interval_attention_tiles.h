// The tile kernels behind interval attention on the CPU: plain pointers, no torch.
//
// Query "columns": the heads that share one key head stand side by side, column c being query row
// c / group and head key_head · group + c % group. So grouped heads read keys and values once and
// the gradients of keys and values sum over the group inside one loop.
//
// A call computes one block of columns × keys for one key head. Calls on blocks that share neither
// may run at once; each needs scratch of its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu_isa.h"

namespace osler {

enum class AttentionType { kFp64, kFp32, kBf16 };

// Values of [row, head, width] with the last dimension dense; strides in elements.
struct AttentionRows {
  const void* data;
  int64_t row_stride, head_stride;
};

// Sums are fp64 for fp64, else fp32.
struct AttentionArguments {
  int64_t key_heads, group, width;
  double scale;
  double soft_cap;  // 0: none
  const int32_t* lo;
  const int32_t* hi;
  AttentionRows q, k, v;
  AttentionRows out;       // of q's type, [T, H, D] contiguous: written forward, read backward
  void* out_sums;          // sums [T, H, D]: written forward in place of out; null: out is
  void* lse;               // sums [T, H]: written forward, read backward
  AttentionRows grad_out;  // backward only, as the rest
  const void* grad_lse;    // sums [T, H], or null
  void* grad_q;            // sums [T, H, D], added to
  void* grad_k;            // sums [S, K, D], added to
  void* grad_v;
};

struct AttentionBlock {
  int64_t key_head;
  int64_t column, columns;
  int64_t key, keys;  // the backward's part of the keys; the forward takes all that a column sees
};

struct AttentionKernels {
  int64_t (*forward_scratch_bytes)(int64_t width);
  void (*forward)(const AttentionArguments&, const AttentionBlock&, std::byte* scratch);
  int64_t (*backward_scratch_bytes)(int64_t width);
  void (*backward)(const AttentionArguments&, const AttentionBlock&, std::byte* scratch);
};

inline constexpr int64_t kMaxAttentionWidth = 256;  // widths are multiples of 8

// The most columns, and keys, of a block. Larger ones pack keys and columns less often; smaller
// ones balance better.
inline constexpr int64_t kForwardColumns = 1024;
inline constexpr int64_t kBackwardColumns = 1024;
inline constexpr int64_t kBackwardKeyValues = 131072;  // keys × width

// Scratch is aligned to 64 bytes.
const AttentionKernels& GetAttentionKernels(CpuIsa isa, AttentionType type);

}  // namespace osler
