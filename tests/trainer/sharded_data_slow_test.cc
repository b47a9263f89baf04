// Data parallel with sharded optimizer state, gradients and parameters (ZeRO 1, 2, 3), by itself
// and replicated (hybrid), is the one-rank computation: gradients per parameter in fp64, and
// parameters after five AdamW steps.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"
#include "tests/trainer/layout_testing.h"

namespace osler {
namespace {

using testing::Compute;
using testing::Describe;
using testing::ExpectSame;
using testing::Layout;
using testing::Outcome;
using testing::TinyCase;
using testing::TinyGemma;
using testing::TinyLlama;

constexpr WalkOptions kRecompute{.recompute = RecomputeMode::kFull};
constexpr ZeroLevel kLevels[] = {ZeroLevel::kOptimizer, ZeroLevel::kGradients,
                                 ZeroLevel::kParameters};

MeshShape Sharded(int shard, int data = 1) { return {{1, data, shard, 1, 1}}; }

void ExpectSameAsOneRank(const TinyCase& tiny, const std::vector<Layout>& layouts) {
  const Outcome one =
      Compute(tiny, {.name = "one rank", .mesh = Sharded(1), .micro_batch = tiny.packs});
  for (const Layout& layout : layouts) {
    SCOPED_TRACE(Describe(layout));
    ExpectSame(one, Compute(tiny, layout));
  }
}

class ShardedDataTest : public ::testing::TestWithParam<ZeroLevel> {};

// Seven packs divide by none of these; a shard of 3 pads most parameters.
TEST_P(ShardedDataTest, AnySizeWithAndWithoutRecomputation) {
  const ZeroLevel zero = GetParam();
  ExpectSameAsOneRank({.config = TinyGemma(3, /*tied_head=*/true), .steps = 5},
                      {{.mesh = Sharded(2), .zero = zero},
                       {.mesh = Sharded(2), .zero = zero, .micro_batch = 4, .walk = kRecompute},
                       {.mesh = Sharded(3), .zero = zero, .micro_batch = 2},
                       {.mesh = Sharded(3), .zero = zero, .walk = kRecompute},
                       {.mesh = Sharded(4), .zero = zero, .micro_batch = 2, .walk = kRecompute},
                       {.mesh = Sharded(4), .zero = zero}});
}

TEST_P(ShardedDataTest, Replicated) {
  const ZeroLevel zero = GetParam();
  ExpectSameAsOneRank({.config = TinyLlama(3, /*tied_head=*/false), .steps = 5},
                      {{.mesh = Sharded(2, 2), .zero = zero},
                       {.mesh = Sharded(2, 2), .zero = zero, .walk = kRecompute},
                       {.mesh = Sharded(3, 2), .zero = zero, .micro_batch = 2}});
}

TEST_P(ShardedDataTest, RanksWithoutPacks) {
  const ZeroLevel zero = GetParam();
  ExpectSameAsOneRank({.config = TinyLlama(3, /*tied_head=*/true), .packs = 3},
                      {{.mesh = Sharded(4), .zero = zero},
                       {.mesh = Sharded(2, 3), .zero = zero, .walk = kRecompute}});
}

TEST_P(ShardedDataTest, Frozen) {
  for (const std::vector<std::string>& trained : std::vector<std::vector<std::string>>{
           {"model.layers.1."}, {"lm_head"}, {"model.layers.2.mlp.up_proj", "model.norm"}}) {
    SCOPED_TRACE(trained[0]);
    ExpectSameAsOneRank(
        {.config = TinyGemma(3, /*tied_head=*/false), .trained = trained, .steps = 2},
        {{.mesh = Sharded(2), .zero = GetParam()},
         {.mesh = Sharded(3), .zero = GetParam(), .walk = kRecompute}});
  }
}

// The same computation wherever optimizer state lives.
TEST_P(ShardedDataTest, OptimizerStateOnTheCpu) {
  ExpectSameAsOneRank({.config = TinyGemma(3, /*tied_head=*/true), .steps = 5},
                      {{.mesh = Sharded(2), .zero = GetParam(), .state = StatePlace::kCpu}});
}

TEST_P(ShardedDataTest, WithOtherAxes) {
  const ZeroLevel zero = GetParam();
  ExpectSameAsOneRank({.config = TinyGemma(4, /*tied_head=*/true), .steps = 2},
                      {{.mesh = {{2, 1, 2, 1, 1}}, .zero = zero},
                       {.mesh = {{2, 2, 2, 1, 1}}, .chunks = 2, .zero = zero, .walk = kRecompute}});
}

// docs/parallelism.md's formulas, in fp64, of four packs one by one over shard 2 × data 2.
TEST_P(ShardedDataTest, SendsTheBytesOfTheFormulas) {
  const int shard = 2, data = 2, packs = 8, micro_batches = packs / (shard * data);
  const std::string config = TinyLlama(3, /*tied_head=*/false);
  const Outcome outcome = Compute({.config = config, .packs = packs, .steps = 1},
                                  {.mesh = Sharded(shard, data), .zero = GetParam()});
  const auto spec = ParseModelSpec(config, "config");
  ASSERT_THAT(spec.status(), testing::IsOk());
  ParameterStore store;
  const Model model = spec->build(store);
  store.LayOut({.placements = {}, .shard_size = shard, .stage = std::nullopt});
  const auto pieces = [&](const std::vector<int64_t>& slots) {
    int64_t bytes = 0;
    for (const int64_t slot : slots) bytes += store.PieceCount(slot) * 8;
    return bytes;
  };
  int64_t all = 0, blocks = 0;
  for (size_t i = 0; i < store.slots().size(); ++i) all += pieces({static_cast<int64_t>(i)});
  for (const auto& block : model.blocks) blocks += pieces(block->slots());
  const int64_t embedding = pieces(model.blocks[0]->slots());
  const int64_t gathers =
      micro_batches * (2 * blocks + pieces({model.head_slot})) - (micro_batches - 1) * embedding;

  const int64_t others = shard - 1;
  const bool cut = GetParam() != ZeroLevel::kOptimizer,
             gathered = GetParam() == ZeroLevel::kParameters;
  EXPECT_EQ(outcome.gradient_bytes[2],
            others * ((cut ? micro_batches : 1) * all + (gathered ? gathers : 0)));
  EXPECT_EQ(outcome.update_bytes[2], 8 * others + (gathered ? 0 : others * all));
  // Of the pieces; an all-reduce's slices need not be equal to the element.
  EXPECT_NEAR(static_cast<double>(outcome.gradient_bytes[1]),
              2.0 * static_cast<double>(all) * (data - 1) / data, 256);
  EXPECT_EQ(outcome.update_bytes[1], 0);
}

INSTANTIATE_TEST_SUITE_P(Levels, ShardedDataTest, ::testing::ValuesIn(kLevels),
                         [](const auto& info) {
                           return absl::StrCat("Zero", static_cast<int>(info.param));
                         });

}  // namespace
}  // namespace osler
