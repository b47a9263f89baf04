#include "parallel/placement.h"

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

}  // namespace
}  // namespace osler
