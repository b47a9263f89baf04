// Cuts a row-interval mask into pieces that a dense attention call can take: rectangles of queries
// × keys.
//
// Pieces depend on the intervals alone and never cross the border of a document, so one document's
// numbers cannot depend on another's values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/interval_attention.h"

namespace osler {

struct AttentionPiece {
  enum class Kind {
    kEmpty,   // rows that see nothing
    kCausal,  // rows == keys, row r sees keys 0..r of the piece
    kFull,    // every row sees every key
    kMasked,  // rows see part of the keys: TileMask
  };
  Kind kind;
  int64_t row, rows;  // of the queries
  int64_t key, keys;  // the keys that any row of the piece sees
};

// The longest kMasked piece. Larger tiles use the matrix units better, smaller ones compute fewer
// hidden scores.
inline constexpr int64_t kMaskedRows = 128;

// PRE (checked): lo and hi int32 [T] on the CPU, 0 <= lo <= hi <= keys, both non-decreasing.
std::vector<AttentionPiece> PlanIntervals(const MaskIntervals& mask, int64_t rows, int64_t keys);

// Additive masks (0 or −∞) [rows, keys] of kMasked pieces. Under a sliding window neighbouring
// tiles have the same pattern, so the last mask is kept. Not thread-safe; keeps a reference to
// `mask`.
class TileMask {
 public:
  // dtype: fp64 for fp64 queries, else fp32.
  TileMask(const MaskIntervals& mask, at::ScalarType dtype) : mask_(mask), dtype_(dtype) {}
  const at::Tensor& For(const AttentionPiece& piece);

 private:
  const MaskIntervals& mask_;
  at::ScalarType dtype_;
  std::vector<int32_t> pattern_;  // lo and hi of each row relative to the piece's first key
  at::Tensor tile_;
};

}  // namespace osler
