// Random packed runs and a rank's rows of them, for the tests of the context axis.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "base/philox.h"
#include "kernels/interval_attention.h"
#include "parallel/context_split.h"

namespace osler::testing {

// Documents of a run of `length` tokens; every other one has up to three.
inline std::vector<int32_t> RandomDocuments(int64_t length, int64_t longest, uint64_t seed) {
  const uint64_t key = PhiloxKey(seed, "documents");
  std::vector<int32_t> starts;
  for (int64_t at = 0; at < length;) {
    starts.push_back(static_cast<int32_t>(at));
    const auto most = static_cast<uint64_t>(starts.size() % 2 == 0 ? 3 : longest);
    at += 1 + static_cast<int64_t>(PhiloxBits(key, starts.size()) % most);
  }
  return starts;
}

// A split by the cost of one layer of this mask.
inline ContextSplit SplitByMask(const MaskIntervals& mask, int ranks, int64_t linear = 20) {
  const std::vector<MaskedLayers> kinds = {{.mask = mask}};
  return SplitContext(TokenCosts(kinds, mask.lo_T.size(0), linear), ranks);
}

// The rows of x in these ranges.
inline at::Tensor RowsIn(const at::Tensor& x, const TokenRanges& ranges) {
  std::vector<at::Tensor> pieces = {x.narrow(0, 0, 0)};
  for (const TokenRange& range : ranges) pieces.push_back(x.narrow(0, range.begin, range.size()));
  return at::cat(pieces);
}

// The same followed by `blind` rows that are not numbers: nothing may come of them.
inline at::Tensor WithNanRows(const at::Tensor& rows, int64_t blind) {
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = blind;
  return at::cat({rows, at::full(shape, std::numeric_limits<double>::quiet_NaN(), rows.options())});
}

}  // namespace osler::testing
