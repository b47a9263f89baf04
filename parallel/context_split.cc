#include "parallel/context_split.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace osler {
namespace {

constexpr int64_t kMostSegments = 16;  // of a rank
// A finer cut has longer halos and more, smaller transfers: it must lower the highest cost by more
// than this share of the mean.
constexpr double kGain = 0.01;

struct Segment {
  TokenRange tokens;
  int64_t cost;
};

std::vector<Segment> CutEvenly(std::span<const int64_t> costs, int64_t count) {
  const auto tokens = static_cast<int64_t>(costs.size());
  std::vector<Segment> segments;
  for (int64_t i = 0; i < count; ++i) {
    const TokenRange range = {tokens * i / count, tokens * (i + 1) / count};
    segments.push_back({range, std::accumulate(costs.begin() + range.begin,
                                               costs.begin() + range.end, int64_t{0})});
  }
  return segments;
}

struct Deal {
  std::vector<std::vector<TokenRange>> hands;  // by rank, as dealt
  int64_t highest = 0;                         // cost of a rank
};

// In rounds of one segment a rank, costliest segments first; in a round the costliest goes to the
// rank that has least so far. So no two ranks end further apart than one segment's cost.
Deal DealOut(std::vector<Segment> segments, size_t ranks) {
  std::stable_sort(segments.begin(), segments.end(),
                   [](const Segment& a, const Segment& b) { return a.cost > b.cost; });
  std::vector<int64_t> sums(ranks, 0);
  std::vector<size_t> order(ranks);
  Deal deal{.hands = std::vector<std::vector<TokenRange>>(ranks)};
  for (size_t first = 0; first < segments.size(); first += ranks) {
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return sums[a] < sums[b]; });
    for (size_t i = 0; i < ranks; ++i) {
      sums[order[i]] += segments[first + i].cost;
      deal.hands[order[i]].push_back(segments[first + i].tokens);
    }
  }
  deal.highest = *std::max_element(sums.begin(), sums.end());
  return deal;
}

TokenRanges Joined(std::vector<TokenRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const TokenRange& a, const TokenRange& b) { return a.begin < b.begin; });
  TokenRanges joined;
  for (const TokenRange& range : ranges) {
    if (range.size() == 0) continue;
    if (!joined.empty() && joined.back().end == range.begin) {
      joined.back().end = range.end;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

}  // namespace

int64_t TokenCount(const TokenRanges& ranges) {
  int64_t count = 0;
  for (const TokenRange& range : ranges) count += range.size();
  return count;
}

std::vector<int64_t> TokenCosts(std::span<const MaskedLayers> kinds, int64_t tokens,
                                int64_t linear) {
  std::vector<int64_t> costs(static_cast<size_t>(tokens), linear);
  for (const MaskedLayers& kind : kinds) {
    OSLER_CHECK(kind.mask.lo_T.size(0) == tokens);
    const auto* lo = kind.mask.lo_T.const_data_ptr<int32_t>();
    const auto* hi = kind.mask.hi_T.const_data_ptr<int32_t>();
    for (size_t t = 0; t < costs.size(); ++t) costs[t] += kind.layers * (hi[t] - lo[t]);
  }
  return costs;
}

ContextSplit SplitContext(std::span<const int64_t> token_costs, int ranks) {
  OSLER_CHECK(ranks >= 1);
  const double mean =
      static_cast<double>(std::accumulate(token_costs.begin(), token_costs.end(), int64_t{0})) /
      ranks;
  Deal best;
  for (int64_t segments = 1; segments <= kMostSegments; segments *= 2) {
    Deal deal = DealOut(CutEvenly(token_costs, segments * ranks), static_cast<size_t>(ranks));
    if (best.hands.empty() || static_cast<double>(best.highest - deal.highest) > kGain * mean)
      best = std::move(deal);
  }
  ContextSplit split;
  for (std::vector<TokenRange>& hand : best.hands) split.ranges.push_back(Joined(std::move(hand)));
  std::stable_sort(split.ranges.begin(), split.ranges.end(),
                   [](const TokenRanges& a, const TokenRanges& b) {
                     return !a.empty() && (b.empty() || a[0].begin < b[0].begin);
                   });
  return split;
}

}  // namespace osler
