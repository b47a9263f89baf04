#include "parallel/context_plan.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace osler {
namespace {

// How many tokens of ascending ranges come before a token, asked for ascending tokens.
class Counter {
 public:
  explicit Counter(const TokenRanges& ranges) : ranges_(ranges) {}
  int64_t Before(int64_t token) {
    while (next_ < ranges_.size() && ranges_[next_].end <= token)
      passed_ += ranges_[next_++].size();
    return next_ == ranges_.size() || token < ranges_[next_].begin
               ? passed_
               : passed_ + token - ranges_[next_].begin;
  }

 private:
  const TokenRanges& ranges_;
  size_t next_ = 0;
  int64_t passed_ = 0;
};

}  // namespace

TokenRanges Common(const TokenRanges& a, const TokenRanges& b) {
  TokenRanges common;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const TokenRange both = {std::max(a[i].begin, b[j].begin), std::min(a[i].end, b[j].end)};
    if (both.begin < both.end) common.push_back(both);
    a[i].end < b[j].end ? ++i : ++j;
  }
  return common;
}

MaskIntervals RowsOverKeys(const MaskIntervals& mask, const TokenRanges& rows, int64_t count,
                           const TokenRanges& keys) {
  const auto* lo = mask.lo_T.const_data_ptr<int32_t>();
  const auto* hi = mask.hi_T.const_data_ptr<int32_t>();
  MaskIntervals local{at::empty({count}, at::kInt), at::empty({count}, at::kInt)};
  auto* local_lo = local.lo_T.mutable_data_ptr<int32_t>();
  auto* local_hi = local.hi_T.mutable_data_ptr<int32_t>();
  Counter from(keys), to(keys);
  int64_t row = 0;
  for (const TokenRange& range : rows) {
    for (int64_t t = range.begin; t < range.end; ++t, ++row) {
      local_lo[row] = static_cast<int32_t>(from.Before(lo[t]));
      local_hi[row] = static_cast<int32_t>(to.Before(hi[t]));
    }
  }
  const auto end = static_cast<int32_t>(TokenCount(keys));
  std::fill(local_lo + row, local_lo + count, end);
  std::fill(local_hi + row, local_hi + count, end);
  return local;
}

TokenRanges PlacesIn(const TokenRanges& whole, const TokenRanges& part) {
  Counter counter(whole);
  TokenRanges places;
  for (const TokenRange& range : part) {
    const int64_t begin = counter.Before(range.begin);
    if (!places.empty() && places.back().end == begin) {
      places.back().end += range.size();
    } else {
      places.push_back({begin, begin + range.size()});
    }
  }
  return places;
}

KeyExchange PlanKeyExchange(const MaskIntervals& mask, const ContextSplit& split, int rank) {
  const auto me = static_cast<size_t>(rank);
  const TokenRanges& own = split.ranges[me];
  KeyExchange exchange;
  std::vector<TokenRanges> seen;
  for (const TokenRanges& rows : split.ranges) {
    seen.push_back(SeenKeys(mask, rows));
    const int64_t keys = TokenCount(seen.back());
    exchange.most_keys = std::max(exchange.most_keys, keys);
    exchange.travelling += keys - TokenCount(Common(seen.back(), rows));
  }
  exchange.keys = TokenCount(seen[me]);
  for (size_t r = 0; r < split.ranges.size(); ++r) {
    exchange.send.push_back(PlacesIn(own, Common(seen[r], own)));
    exchange.receive.push_back(PlacesIn(seen[me], Common(seen[me], split.ranges[r])));
  }
  return exchange;
}

}  // namespace osler
