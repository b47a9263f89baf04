#include <algorithm>

#include "parallel/context_plan.h"

namespace osler {

TokenRanges SeenKeys(const MaskIntervals& mask, const TokenRanges& rows) {
  const auto* lo = mask.lo_T.const_data_ptr<int32_t>();
  const auto* hi = mask.hi_T.const_data_ptr<int32_t>();
  TokenRanges seen;
  for (const TokenRange& range : rows) {
    for (int64_t t = range.begin; t < range.end; ++t) {
      if (lo[t] == hi[t]) continue;
      if (!seen.empty() && lo[t] <= seen.back().end) {
        seen.back().end = std::max<int64_t>(seen.back().end, hi[t]);
      } else {
        seen.push_back({lo[t], hi[t]});
      }
    }
  }
  return seen;
}

}  // namespace osler
