#include "parallel/placement.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

namespace osler {
namespace {

TEST(Placement, AStarStandsForOnePart) {
  const PlacementRule rule = {"model.layers.*.mlp.up_proj.weight", Split::kColumn};
  EXPECT_TRUE(Matches(rule, "model.layers.0.mlp.up_proj.weight"));
  EXPECT_TRUE(Matches(rule, "model.layers.17.mlp.up_proj.weight"));
  for (const char* other :
       {"", "model", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj.bias",
        "model.layers.0.mlp.up_proj.weight.x", "model.layers.mlp.up_proj.weight",
        "model.layers.0.1.mlp.up_proj.weight", "x.model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj.weights"}) {
    EXPECT_FALSE(Matches(rule, other)) << other;
  }
  EXPECT_TRUE(Matches({"*"}, "a"));
  EXPECT_FALSE(Matches({"*"}, "a.b"));
  EXPECT_TRUE(Matches({"a.*"}, "a.b"));
  EXPECT_FALSE(Matches({"a.*"}, "a"));
}

TEST(Placement, FindsTheRuleOfAParameter) {
  const PlacementRules rules = {{"model.norm.weight"},
                                {"model.layers.*.self_attn.q_proj.weight", Split::kColumn, 64}};
  ASSERT_NE(FindRule(rules, "model.layers.3.self_attn.q_proj.weight"), nullptr);
  EXPECT_EQ(*FindRule(rules, "model.layers.3.self_attn.q_proj.weight"), rules[1]);
  EXPECT_EQ(FindRule(rules, "model.norm.weight")->split, Split::kReplicated);
  EXPECT_EQ(FindRule(rules, "lm_head.weight"), nullptr);
}

TEST(Placement, DimsAreThoseOfOutByInMatrices) {
  EXPECT_EQ(SplitDim(Split::kReplicated), std::nullopt);
  EXPECT_EQ(SplitDim(Split::kColumn), 0);
  EXPECT_EQ(SplitDim(Split::kRow), 1);
  EXPECT_EQ(SplitDim(Split::kVocabulary), 0);
}

TEST(TensorSlice, UnitsAreDealtInOrderAndWhole) {
  const PlacementRule heads = {"q", Split::kColumn, 16}, rows = {"o", Split::kRow, 16};
  EXPECT_EQ(SliceFor(heads, {128, 5}, 3, 4), (TensorSlice{.dim = 0, .begin = 96, .length = 32}));
  EXPECT_EQ(SliceFor(rows, {5, 128}, 1, 2), (TensorSlice{.dim = 1, .begin = 64, .length = 64}));
  EXPECT_EQ(SliceFor({"e", Split::kVocabulary}, {96, 7}, 2, 3),
            (TensorSlice{.dim = 0, .begin = 64, .length = 32}));
  EXPECT_EQ(SliceFor({"b", Split::kColumn}, {6}, 1, 2),
            (TensorSlice{.dim = 0, .begin = 3, .length = 3}));
}

TEST(TensorSlice, OneRankHoldsEverythingOnce) {
  for (const Split split : {Split::kReplicated, Split::kColumn, Split::kRow, Split::kVocabulary}) {
    const TensorSlice slice = SliceFor({"x", split, 4}, {8, 12}, 0, 1);
    EXPECT_EQ(SlicedShape({8, 12}, slice), (std::vector<int64_t>{8, 12}));
    EXPECT_EQ(slice.copies, 1);
  }
}

TEST(TensorSlice, NeighboursShareAHeadWhenThereAreFewerHeadsThanRanks) {
  const PlacementRule keys = {"k", Split::kColumn, 16};
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(SliceFor(keys, {32, 5}, rank, 4),
              (TensorSlice{.dim = 0, .begin = rank / 2 * 16, .length = 16, .copies = 2}));
    EXPECT_EQ(SliceFor(keys, {16}, rank, 4),
              (TensorSlice{.dim = 0, .begin = 0, .length = 16, .copies = 4}));
    EXPECT_EQ(SliceFor({"n"}, {7}, rank, 4),
              (TensorSlice{.dim = 0, .begin = 0, .length = 7, .copies = 4}));
  }
}

TEST(TensorSlice, RefusesWhatDoesNotDivide) {
  EXPECT_THROW(SliceFor({"q", Split::kColumn, 16}, {48, 5}, 0, 2), c10::Error);  // 3 heads on 2
  EXPECT_THROW(SliceFor({"q", Split::kColumn, 16}, {32, 5}, 0, 3), c10::Error);  // 2 on 3
  EXPECT_THROW(SliceFor({"q", Split::kColumn, 16}, {40, 5}, 0, 2), c10::Error);  // half a head
  // A copy of what is summed would count twice.
  EXPECT_THROW(SliceFor({"o", Split::kRow, 16}, {5, 32}, 0, 4), c10::Error);
  EXPECT_THROW(SliceFor({"e", Split::kVocabulary}, {2, 5}, 0, 4), c10::Error);
}

TEST(TensorSlice, NarrowTakesTheSliceOfTheWhole) {
  const at::Tensor whole = at::arange(24, at::kLong).view({4, 6});
  const TensorSlice rows = SliceFor({"c", Split::kColumn}, {4, 6}, 1, 2);
  const TensorSlice columns = SliceFor({"r", Split::kRow, 2}, {4, 6}, 2, 3);
  EXPECT_TRUE(at::equal(Narrow(whole, rows), whole.slice(0, 2, 4)));
  EXPECT_TRUE(at::equal(Narrow(whole, columns), whole.slice(1, 4, 6)));
  EXPECT_EQ(Narrow(whole, columns).sizes(), SlicedShape({4, 6}, columns));
}

}  // namespace
}  // namespace osler
