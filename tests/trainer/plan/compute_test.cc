// Keys, work, checkpoint sizes and layouts by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "configs/config.h"
#include "tests/testing/matchers.h"
#include "trainer/plan/checkpoint_plan.h"
#include "trainer/plan/layouts.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;

constexpr char kModel[] = R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
  "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6,
  "max_position_embeddings": 64, "tie_word_embeddings": true})";
// Query, key, value, output; gate, up, down.
constexpr int64_t kLayer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32;
constexpr int64_t kParameters = 4 * (kLayer + 32 + 2 * 16 + 2 * 32) + 32 + 100 * 32;

class PlanTest : public ::testing::Test {
 protected:
  void SetUp() override { Configure({}); }

  void Configure(std::vector<std::string> settings) {
    settings.push_back("data.sequence_length=64");
    const auto config = ParseTrainConfig(
        "{model: {path: m}, data: {train: [{path: d}]}, train: {steps: 1, global_batch: 8, "
        "output: o}}",
        "test", settings);
    ASSERT_THAT(config, IsOk());
    const auto spec = ParseModelSpec(kModel, "config.json");
    ASSERT_THAT(spec, IsOk());
    auto model = MakePlanModel(*config, *spec);
    ASSERT_THAT(model, IsOk());
    model_ = *std::move(model);
    batch_ = PlanBatchOf(*config);
  }

  PlanFlops Flops() {
    const auto flops = FlopsOf(model_.model, model_.store, FullSequenceKeys(model_.model, 64), 1);
    EXPECT_THAT(flops, IsOk());
    return *flops;
  }

  PlanModel model_;
  PlanBatch batch_;
};

TEST_F(PlanTest, KeysSeen) {
  EXPECT_EQ(KeysSeen(0, std::nullopt), 0);
  EXPECT_EQ(KeysSeen(5, std::nullopt), 15);
  EXPECT_EQ(KeysSeen(5, 1), 5);
  EXPECT_EQ(KeysSeen(5, 3), 1 + 2 + 3 + 3 + 3);
  EXPECT_EQ(KeysSeen(5, 9), 15);
}

TEST_F(PlanTest, Flops) {
  const PlanFlops flops = Flops();
  EXPECT_EQ(flops.matrices, 2 * 4 * kLayer);
  EXPECT_EQ(flops.gate_up, 2 * 4 * 2 * 48 * 32);
  EXPECT_EQ(flops.head, 2 * 100 * 32);
  EXPECT_DOUBLE_EQ(flops.attention, 4 * 4.0 * 32 * 32.5);  // 65 / 2 keys a token
  EXPECT_DOUBLE_EQ(flops.Computed(batch_, RecomputeMode::kNone),
                   3 * flops.matrices + 3.5 * flops.attention + 3 * flops.head);
  batch_.step.mlp_chunk_tokens = 16;
  EXPECT_DOUBLE_EQ(flops.Computed(batch_, RecomputeMode::kFull),
                   4 * flops.matrices + flops.gate_up + 4.5 * flops.attention + 3 * flops.head);
  EXPECT_DOUBLE_EQ(flops.Computed(batch_, RecomputeMode::kSelective),
                   4 * flops.matrices + flops.gate_up + 3.5 * flops.attention + 3 * flops.head);
}

TEST_F(PlanTest, Checkpoints) {
  CheckpointPlan plan = PlanCheckpoints(model_, batch_, 4, {.disk_bytes = 1000, .mtbf_hours = 40});
  EXPECT_EQ(plan.weights, 4 * kParameters);
  EXPECT_EQ(plan.optimizer, 8 * kParameters);
  EXPECT_DOUBLE_EQ(plan.mtbf_s, 36000);
  EXPECT_DOUBLE_EQ(plan.interval_s, std::sqrt(2 * plan.save_s * 36000));
  // Frozen parameters have no state; bf16 has a master copy.
  Configure({"train.precision=bf16", "train.freeze=[\"model.embed_tokens.*\"]"});
  plan = PlanCheckpoints(model_, batch_, 1, {});
  EXPECT_EQ(plan.weights, 2 * kParameters);
  EXPECT_EQ(plan.optimizer, 12 * (kParameters - 100 * 32));
}

TEST_F(PlanTest, LayoutsAreThoseThatTheModelAllows) {
  PlanSpace space(model_, batch_);
  const auto search = SearchLayouts(model_, batch_, Flops(), {}, 8, int64_t{1} << 40);
  ASSERT_THAT(search, IsOk());
  std::set<std::string> names;
  for (const RankedLayout& one : search->fitting) {
    EXPECT_EQ(one.layout.ranks(), 8);
    EXPECT_THAT(space.Check(one.layout), IsOk());
    EXPECT_GT(one.memory, kProcessBytes);
    names.insert(NameOf(one.layout));
  }
  EXPECT_EQ(names.size(), search->fitting.size());
  EXPECT_TRUE(names.contains("data8"));
  EXPECT_TRUE(names.contains("pipeline2.shard2.tensor2.zero3.interleave2"));
  EXPECT_FALSE(names.contains("tensor8"));    // four heads
  EXPECT_FALSE(names.contains("pipeline8"));  // four layers
  EXPECT_FALSE(names.contains("context8"));   // of 64 tokens
}

// What a search rules layouts out by, without a rehearsal.
TEST_F(PlanTest, NoLayoutNeedsLessThanTheLeast) {
  for (const StagedCopy staged : {StagedCopy::kNever, StagedCopy::kAtTheEnd, StagedCopy::kKept}) {
    batch_.staged = staged;
    PlanSpace space(model_, batch_);
    const auto search = SearchLayouts(model_, batch_, Flops(), {}, 8, int64_t{1} << 40);
    ASSERT_THAT(search, IsOk());
    for (const RankedLayout& one : search->fitting) {
      const auto least = LeastMemory(space, one.layout);
      ASSERT_THAT(least, IsOk());
      EXPECT_GT(*least, kProcessBytes);
      EXPECT_LE(*least, one.memory) << NameOf(one.layout);
    }
  }
}

// Under a limit between what the layouts need, each is there with the least recomputation that
// fits, or not at all.
TEST_F(PlanTest, AMemoryLimitKeepsWhatFits) {
  PlanSpace space(model_, batch_);
  const auto needs = [&](PlanLayout layout, RecomputeMode recompute) {
    layout.recompute = recompute;
    const auto ranks = PredictMemory(space, layout, StageChoice::kWorst);
    EXPECT_THAT(ranks, IsOk());
    return WorstRank(*ranks).total();
  };
  const auto all = SearchLayouts(model_, batch_, Flops(), {}, 8, int64_t{1} << 40);
  ASSERT_THAT(all, IsOk());
  int64_t lowest = all->smallest.memory, highest = 0;
  for (const RankedLayout& one : all->fitting) {
    lowest = std::min(lowest, needs(one.layout, RecomputeMode::kFull));
    highest = std::max(highest, one.memory);
  }
  std::map<RecomputeMode, int> seen;
  for (int part = 1; part < 10; ++part) {
    const int64_t limit = lowest + (highest - lowest) * part / 10;
    const auto some = SearchLayouts(model_, batch_, Flops(), {}, 8, limit);
    ASSERT_THAT(some, IsOk());
    EXPECT_EQ(some->tried, all->tried);
    std::map<std::string, RankedLayout> found;
    for (RankedLayout one : some->fitting) {
      ++seen[std::exchange(one.layout.recompute, RecomputeMode::kNone)];
      found[NameOf(one.layout)] = one;
    }
    for (const RankedLayout& one : all->fitting) {
      std::optional<int64_t> expected;
      for (const RecomputeMode mode :
           {RecomputeMode::kNone, RecomputeMode::kSelective, RecomputeMode::kFull}) {
        const int64_t needed = needs(one.layout, mode);
        if (needed <= limit && !expected.has_value()) expected = needed;
      }
      ASSERT_EQ(found.contains(NameOf(one.layout)), expected.has_value()) << NameOf(one.layout);
      if (expected.has_value()) {
        EXPECT_EQ(found[NameOf(one.layout)].memory, *expected) << NameOf(one.layout);
      }
    }
  }
  EXPECT_EQ(seen.size(), 3u);
}

TEST_F(PlanTest, NothingFits) {
  const auto search = SearchLayouts(model_, batch_, Flops(), {}, 2, 1000);
  ASSERT_THAT(search, IsOk());
  EXPECT_TRUE(search->fitting.empty());
  EXPECT_EQ(search->too_large(), search->tried);
  EXPECT_GT(search->smallest.memory, 1000);
}

// Comparing layouts looks at some stages only: the worst is among them.
TEST_F(PlanTest, TheWorstStageIsAmongTheChosen) {
  PlanSpace space(model_, batch_);
  for (const int stages : {2, 3, 4}) {
    for (const RecomputeMode recompute : {RecomputeMode::kNone, RecomputeMode::kFull}) {
      const PlanLayout layout{{{stages, 1, 1, 1, 1}}, {}, recompute};
      const auto all = PredictMemory(space, layout);
      const auto some = PredictMemory(space, layout, StageChoice::kWorst);
      ASSERT_THAT(all, IsOk());
      ASSERT_THAT(some, IsOk());
      EXPECT_EQ(WorstRank(*all).tensors(), WorstRank(*some).tensors());
    }
  }
}

// Work is divided by every axis; a pipeline waits; what one axis sends is on its links.
TEST_F(PlanTest, StepTime) {
  PlanSpace space(model_, batch_);
  const PlanFlops flops = Flops();
  const auto time_of = [&](MeshShape mesh, ZeroLevel zero) {
    const auto time = EstimateStep(space, {mesh, {zero, 1}, {}}, flops, {});
    EXPECT_THAT(time, IsOk());
    return *time;
  };
  const StepTime one = time_of({}, ZeroLevel::kOptimizer);
  const double work = flops.Computed(batch_, RecomputeMode::kNone) * 8 * 64;
  EXPECT_NEAR(one.compute_s, work / (989e12 * 0.45), 1e-9 * one.compute_s);
  EXPECT_EQ(one.total_s(), one.compute_s);

  const StepTime data = time_of({{1, 2, 1, 1, 1}}, ZeroLevel::kOptimizer);
  EXPECT_NEAR(data.compute_s, one.compute_s / 2, 1e-9 * one.compute_s);
  EXPECT_EQ(data.bytes[1], 4 * kParameters);  // 2 (n − 1) / n of fp32 gradients
  const StepTime shard = time_of({{1, 1, 2, 1, 1}}, ZeroLevel::kParameters);
  EXPECT_EQ(shard.bytes[2], 4 * 3 * (4 * kParameters / 2));  // four micro-batches, g + 2 e
  const StepTime tensor = time_of({{1, 1, 1, 1, 2}}, ZeroLevel::kOptimizer);
  EXPECT_EQ(tensor.bytes[4], 8 * 2 * (4 * 4 + 1) * (128 * 32 * 4) / 2);
  const StepTime pipeline = time_of({{2, 1, 1, 1, 1}}, ZeroLevel::kOptimizer);
  EXPECT_NEAR(pipeline.bubble_s, (pipeline.compute_s + pipeline.exchange_s) / 8,
              1e-9 * pipeline.bubble_s);
}

}  // namespace
}  // namespace osler
