#include "parallel/context_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

#include "tests/parallel/context_testing.h"

namespace osler {
namespace {

std::vector<int64_t> Costs(const std::vector<int32_t>& starts, int64_t length, int64_t linear,
                           std::optional<int64_t> window = std::nullopt) {
  const std::vector<MaskedLayers> kinds = {
      {.mask = CausalDocumentIntervals(starts, length, window)}};
  return TokenCosts(kinds, length, linear);
}

int64_t CostOf(const TokenRanges& ranges, const std::vector<int64_t>& costs) {
  int64_t sum = 0;
  for (const TokenRange& range : ranges)
    sum = std::accumulate(costs.begin() + range.begin, costs.begin() + range.end, sum);
  return sum;
}

// The costliest rank over the mean.
double Imbalance(const ContextSplit& split, const std::vector<int64_t>& costs) {
  int64_t highest = 0, total = 0;
  for (const TokenRanges& ranges : split.ranges) {
    const int64_t cost = CostOf(ranges, costs);
    highest = std::max(highest, cost);
    total += cost;
  }
  return static_cast<double>(highest) * static_cast<double>(split.ranges.size()) /
         static_cast<double>(total);
}

// Every token once, ranges ascending, apart and not empty.
void ExpectCovers(const ContextSplit& split, int64_t length, int ranks) {
  ASSERT_EQ(split.ranges.size(), static_cast<size_t>(ranks));
  std::vector<int> seen(static_cast<size_t>(length), 0);
  for (const TokenRanges& ranges : split.ranges) {
    int64_t last = -1;
    for (const TokenRange& range : ranges) {
      EXPECT_GT(range.begin, last);
      EXPECT_GT(range.size(), 0);
      last = range.end;
      for (int64_t t = range.begin; t < range.end; ++t) ++seen[static_cast<size_t>(t)];
    }
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), length);
}

TEST(TokenCosts, SumsIntervalsOverLayersAndLinearWork) {
  const std::vector<MaskedLayers> kinds = {
      {.mask = CausalDocumentIntervals({0, 3}, 6, std::nullopt), .layers = 1},
      {.mask = CausalDocumentIntervals({0, 3}, 6, 2), .layers = 5}};
  EXPECT_EQ(TokenCosts(kinds, 6, 100), (std::vector<int64_t>{106, 112, 113, 106, 112, 113}));
}

TEST(SplitContext, OneCausalDocumentIsAZigzag) {
  const auto costs = Costs({0}, 8000, 0);
  const ContextSplit split = SplitContext(costs, 4);
  EXPECT_EQ(split.ranges[0], (TokenRanges{{0, 1000}, {7000, 8000}}));
  EXPECT_EQ(split.ranges[1], (TokenRanges{{1000, 2000}, {6000, 7000}}));
  EXPECT_EQ(split.ranges[2], (TokenRanges{{2000, 3000}, {5000, 6000}}));
  EXPECT_EQ(split.ranges[3], (TokenRanges{{3000, 5000}}));
}

TEST(SplitContext, EqualWorkStaysInOnePiece) {
  const ContextSplit split = SplitContext(Costs({0}, 9000, 1000, 16), 3);
  EXPECT_EQ(split.ranges[0], (TokenRanges{{0, 3000}}));
  EXPECT_EQ(split.ranges[1], (TokenRanges{{3000, 6000}}));
  EXPECT_EQ(split.ranges[2], (TokenRanges{{6000, 9000}}));
}

TEST(SplitContext, ALongDocumentBalancesWithinFivePercent) {
  for (const int ranks : {2, 3, 4, 7, 8, 16, 64}) {
    for (const int64_t length : {4000, 32768, 100003}) {
      for (const int64_t linear : {0, 1000, 100000}) {
        const auto costs = Costs({0}, length, linear);
        const ContextSplit split = SplitContext(costs, ranks);
        ExpectCovers(split, length, ranks);
        EXPECT_LE(Imbalance(split, costs), 1.05) << ranks << " ranks, " << length << " tokens";
      }
    }
  }
}

TEST(SplitContext, RandomPacksBalance) {
  double worst = 1;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const int ranks = 2 + static_cast<int>(seed % 7);
    const int64_t length = 2048 + static_cast<int64_t>(PhiloxBits(seed, 1) % 30000);
    const int64_t longest = 64 + static_cast<int64_t>(PhiloxBits(seed, 2) % 16000);
    const auto costs = Costs(testing::RandomDocuments(length, longest, seed), length,
                             static_cast<int64_t>(PhiloxBits(seed, 3) % 4000));
    const ContextSplit split = SplitContext(costs, ranks);
    ExpectCovers(split, length, ranks);
    worst = std::max(worst, Imbalance(split, costs));
    std::vector<int64_t> counts;
    for (const TokenRanges& ranges : split.ranges) counts.push_back(TokenCount(ranges));
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    EXPECT_LE(*most - *least, 16) << seed;  // memory is level
  }
  RecordProperty("worst_imbalance", std::to_string(worst));
  std::printf("costliest rank over the mean, worst of 300 packs: %.4f\n", worst);
  EXPECT_LE(worst, 1.05);
}

// No two ranks are further apart than the costliest segment, whatever the costs.
TEST(SplitContext, WorstCasesStayWithinOneSegment) {
  std::vector<std::vector<int64_t>> cases = {
      std::vector<int64_t>(1000, 0), std::vector<int64_t>(1000, 0), Costs({0, 900}, 1000, 0),
      Costs({0, 1, 2, 3, 500}, 1000, 1)};
  cases[1][999] = 1000000;  // one token costs everything: nothing can be done
  for (const std::vector<int64_t>& costs : cases) {
    for (const int ranks : {2, 3, 8}) {
      const ContextSplit split = SplitContext(costs, ranks);
      ExpectCovers(split, 1000, ranks);
      std::vector<int64_t> sums;
      for (const TokenRanges& ranges : split.ranges) sums.push_back(CostOf(ranges, costs));
      const auto [least, most] = std::minmax_element(sums.begin(), sums.end());
      int64_t segment = 0;  // the longest there can be
      const auto width = static_cast<size_t>(1000 / ranks + 1);
      for (size_t t = 0; t + width <= 1000; ++t) {
        const auto from = costs.begin() + static_cast<int64_t>(t);
        segment = std::max(segment,
                           std::accumulate(from, from + static_cast<int64_t>(width), int64_t{0}));
      }
      EXPECT_LE(*most - *least, segment);
    }
  }
}

TEST(SplitContext, AnyNumberOfTokens) {
  for (const int ranks : {1, 2, 3, 8}) {
    for (int64_t length = 0; length < 40; ++length)
      ExpectCovers(
          SplitContext(
              Costs(length == 0 ? std::vector<int32_t>{} : std::vector<int32_t>{0}, length, 1),
              ranks),
          length, ranks);
  }
  EXPECT_TRUE(SplitContext(std::vector<int64_t>{5, 5, 5}, 8).ranges[7].empty());
}

}  // namespace
}  // namespace osler
