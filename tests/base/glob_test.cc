#include "base/glob.h"

#include <gtest/gtest.h>

namespace osler {
namespace {

TEST(GlobTest, MatchesWholeNames) {
  EXPECT_TRUE(GlobMatches("model.norm.weight", "model.norm.weight"));
  EXPECT_FALSE(GlobMatches("model.norm", "model.norm.weight"));
  EXPECT_FALSE(GlobMatches("norm.weight", "model.norm.weight"));
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("**", "a"));
  EXPECT_FALSE(GlobMatches("", "a"));
  EXPECT_TRUE(GlobMatches("model.layers.*.mlp.*", "model.layers.0.mlp.up_proj.weight"));
  EXPECT_FALSE(GlobMatches("model.layers.*.mlp.*", "model.layers.0.self_attn.q_proj.weight"));
  EXPECT_TRUE(GlobMatches("*norm.weight", "model.layers.11.input_layernorm.weight"));
  EXPECT_TRUE(GlobMatches("model.layers.?.*", "model.layers.7.mlp"));
  EXPECT_FALSE(GlobMatches("model.layers.?.*", "model.layers.17.mlp"));
  EXPECT_TRUE(GlobMatches("*ab*ab", "xabab"));  // the first star must not take too much
}

TEST(GlobTest, DistanceCountsEditsOutsideTheStars) {
  EXPECT_EQ(GlobDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(GlobDistance("", "abc"), 3u);
  EXPECT_EQ(GlobDistance("abc", ""), 3u);
  EXPECT_EQ(GlobDistance("model.layer.*.mlp.*", "model.layers.0.mlp.up_proj.weight"), 1u);
  EXPECT_EQ(GlobDistance("a*c", "abbbd"), 1u);
}

}  // namespace
}  // namespace osler
