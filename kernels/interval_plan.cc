#include "kernels/interval_plan.h"

#include <ATen/ops/full.h>

#include <algorithm>
#include <limits>

namespace osler {
namespace {

using Kind = AttentionPiece::Kind;

void CheckIntervals(const MaskIntervals& mask, int64_t rows, int64_t keys) {
  for (const at::Tensor* end : {&mask.lo_T, &mask.hi_T}) {
    TORCH_CHECK(end->defined() && end->scalar_type() == at::kInt && end->dim() == 1 &&
                    end->size(0) == rows && end->is_contiguous() && end->device().is_cpu(),
                "mask intervals must be contiguous int32 CPU tensors with one entry a query row");
  }
  const auto* lo = mask.lo_T.const_data_ptr<int32_t>();
  const auto* hi = mask.hi_T.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < rows; ++i) {
    TORCH_CHECK(0 <= lo[i] && lo[i] <= hi[i] && hi[i] <= keys, "mask row ", i, " is [", lo[i], ", ",
                hi[i], "), outside the ", keys, " keys");
    TORCH_CHECK(i == 0 || (lo[i - 1] <= lo[i] && hi[i - 1] <= hi[i]), "mask ends decrease at row ",
                i);
  }
}

// Reads intervals row by row; each member returns the end of a run of rows that starts at `row`.
struct Intervals {
  const int32_t* lo;
  const int32_t* hi;
  int64_t rows;

  int64_t EmptyEnd(int64_t row) const {
    while (row < rows && lo[row] == hi[row]) ++row;
    return row;
  }
  int64_t CausalEnd(int64_t row) const {
    int64_t end = row;
    while (end < rows && lo[end] == lo[row] && hi[end] == lo[row] + (end - row) + 1) ++end;
    return end;
  }
  // A row that shares no key with the one before starts another document.
  int64_t TileEnd(int64_t row) const {
    int64_t end = row + 1;
    while (end < rows && end - row < kMaskedRows && lo[end] < hi[end] && lo[end] < hi[end - 1])
      ++end;
    return end;
  }
};

}  // namespace

std::vector<AttentionPiece> PlanIntervals(const MaskIntervals& mask, int64_t rows, int64_t keys) {
  CheckIntervals(mask, rows, keys);
  const Intervals in{mask.lo_T.const_data_ptr<int32_t>(), mask.hi_T.const_data_ptr<int32_t>(),
                     rows};
  std::vector<AttentionPiece> pieces;
  for (int64_t row = 0, end = 0; row < rows; row = end) {
    Kind kind = Kind::kEmpty;
    if (end = in.EmptyEnd(row); end == row) {
      kind = Kind::kCausal;
      if (end = in.CausalEnd(row); end == row) {
        end = in.TileEnd(row);
        kind = in.lo[row] == in.lo[end - 1] && in.hi[row] == in.hi[end - 1] ? Kind::kFull
                                                                            : Kind::kMasked;
      }
    }
    pieces.push_back({kind, row, end - row, in.lo[row], in.hi[end - 1] - in.lo[row]});
  }
  return pieces;
}

const at::Tensor& TileMask::For(const AttentionPiece& piece) {
  const auto* lo = mask_.lo_T.const_data_ptr<int32_t>() + piece.row;
  const auto* hi = mask_.hi_T.const_data_ptr<int32_t>() + piece.row;
  std::vector<int32_t> pattern;
  for (int64_t r = 0; r < piece.rows; ++r) {
    pattern.push_back(static_cast<int32_t>(lo[r] - piece.key));
    pattern.push_back(static_cast<int32_t>(hi[r] - piece.key));
  }
  if (tile_.defined() && tile_.size(1) == piece.keys && pattern == pattern_) return tile_;
  pattern_ = std::move(pattern);
  tile_ = at::full({piece.rows, piece.keys}, -std::numeric_limits<double>::infinity(), dtype_);
  for (int64_t r = 0; r < piece.rows; ++r) {
    const auto row = static_cast<size_t>(2 * r);
    tile_[r].slice(0, pattern_[row], pattern_[row + 1]).zero_();
  }
  return tile_;
}

}  // namespace osler
