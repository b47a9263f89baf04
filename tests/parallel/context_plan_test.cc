#include "parallel/context_plan.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/interval_plan.h"
#include "tests/parallel/context_testing.h"

namespace osler {
namespace {

at::Tensor Ints(const std::vector<int32_t>& values) { return at::tensor(values, at::kInt); }

TEST(Ranges, CommonTokens) {
  EXPECT_EQ(Common({{0, 5}, {8, 12}}, {{3, 9}, {11, 20}}), (TokenRanges{{3, 5}, {8, 9}, {11, 12}}));
  EXPECT_EQ(Common({{0, 5}}, {{5, 9}}), TokenRanges{});
  EXPECT_EQ(Common({}, {{5, 9}}), TokenRanges{});
}

TEST(Ranges, PlacesAmongThoseOfTheWhole) {
  EXPECT_EQ(PlacesIn({{10, 14}, {20, 30}}, {{11, 12}, {13, 14}, {20, 22}, {29, 30}}),
            (TokenRanges{{1, 2}, {3, 6}, {13, 14}}));
}

// Documents [0, 6), [6, 10); a window of 3.
TEST(SeenKeys, AWindowsHaloStopsAtTheDocument) {
  const MaskIntervals mask = CausalDocumentIntervals({0, 6}, 10, 3);
  EXPECT_EQ(SeenKeys(mask, {{4, 6}}), (TokenRanges{{2, 6}}));
  EXPECT_EQ(SeenKeys(mask, {{1, 2}, {7, 8}}), (TokenRanges{{0, 2}, {6, 8}}));
  EXPECT_EQ(SeenKeys(mask, {{5, 6}, {9, 10}}), (TokenRanges{{3, 6}, {7, 10}}));
  EXPECT_EQ(SeenKeys(mask, {}), TokenRanges{});
}

TEST(RowsOverKeys, NumbersTheKeysGiven) {
  const MaskIntervals mask = CausalDocumentIntervals({0, 6}, 10, std::nullopt);
  const MaskIntervals local = RowsOverKeys(mask, {{2, 4}, {8, 10}}, 6, {{0, 3}, {5, 9}});
  EXPECT_TRUE(at::equal(local.lo_T, Ints({0, 0, 4, 4, 7, 7})));
  EXPECT_TRUE(at::equal(local.hi_T, Ints({3, 3, 7, 7, 7, 7})));
}

TEST(RowsOverKeys, AreIntervalsForAnySubset) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const int64_t length = 1 + static_cast<int64_t>(PhiloxBits(seed, 0) % 120);
    const auto starts = testing::RandomDocuments(length, 40, seed);
    const MaskIntervals mask = CausalDocumentIntervals(
        starts, length, seed % 3 == 0 ? std::nullopt : std::optional<int64_t>(1 + seed % 9));
    const ContextSplit split = testing::SplitByMask(mask, 2 + static_cast<int>(seed % 4));
    for (const TokenRanges& rows : split.ranges) {
      for (const TokenRanges& keys : split.ranges) {
        const MaskIntervals local = RowsOverKeys(mask, rows, TokenCount(rows) + 2, keys);
        ASSERT_NO_THROW(CheckIntervals(local, TokenCount(rows) + 2, TokenCount(keys)));
      }
    }
  }
}

// A causal document of 80 tokens over two ranks: [0, 20) and [60, 80) against [20, 60).
TEST(PlanKeyExchange, HalosAreOneLessThanTheWindow) {
  const MaskIntervals causal = CausalDocumentIntervals({0}, 80, std::nullopt);
  const ContextSplit split = testing::SplitByMask(causal, 2);
  ASSERT_EQ(split.ranges[1], (TokenRanges{{20, 60}}));
  const KeyExchange window = PlanKeyExchange(CausalDocumentIntervals({0}, 80, 5), split, 1);
  EXPECT_EQ(window.keys, 44);
  EXPECT_EQ(window.receive[0], (TokenRanges{{0, 4}}));
  EXPECT_EQ(window.receive[1], (TokenRanges{{4, 44}}));
  EXPECT_EQ(window.send[0], (TokenRanges{{36, 40}}));  // tokens 56 to 59
  EXPECT_EQ(window.travelling, 8);
  const KeyExchange global = PlanKeyExchange(causal, split, 1);
  EXPECT_EQ(global.keys, 60);
  EXPECT_EQ(global.most_keys, 80);
  EXPECT_EQ(global.send[0], (TokenRanges{{0, 40}}));
  EXPECT_EQ(global.receive[0], (TokenRanges{{0, 20}}));
  EXPECT_EQ(global.travelling, 60);
}

TEST(PlanKeyExchange, NothingTravelsBetweenWholeDocuments) {
  const MaskIntervals mask = CausalDocumentIntervals({0, 20}, 40, std::nullopt);
  const ContextSplit split = {.ranges = {{{0, 20}}, {{20, 40}}}};
  EXPECT_EQ(PlanKeyExchange(mask, split, 0).travelling, 0);
  EXPECT_EQ(PlanKeyExchange(mask, split, 1).keys, 20);
}

TEST(PlanKeyExchange, BothSidesAgree) {
  const MaskIntervals mask = CausalDocumentIntervals(testing::RandomDocuments(300, 90, 5), 300, 17);
  const ContextSplit split = testing::SplitByMask(mask, 5);
  std::vector<KeyExchange> plans;
  for (int rank = 0; rank < 5; ++rank) plans.push_back(PlanKeyExchange(mask, split, rank));
  int64_t travelling = 0;
  for (size_t from = 0; from < 5; ++from) {
    for (size_t to = 0; to < 5; ++to) {
      EXPECT_EQ(TokenCount(plans[from].send[to]), TokenCount(plans[to].receive[from]));
      if (from != to) travelling += TokenCount(plans[from].send[to]);
    }
  }
  EXPECT_GT(travelling, 0);
  EXPECT_EQ(travelling, plans[0].travelling);
}

}  // namespace
}  // namespace osler
