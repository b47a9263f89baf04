#include "trainer/stage_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using Costs = std::vector<int64_t>;

int64_t CostOf(const StagePlan& plan, int v, const Costs& blocks, int64_t head) {
  const auto [begin, end] = plan.BlocksOf(v);
  int64_t cost = v == plan.shape.virtual_stages() - 1 ? head : 0;
  for (int64_t b = begin; b < end; ++b) cost += blocks[static_cast<size_t>(b)];
  return cost;
}

int64_t Costliest(const StagePlan& plan, const Costs& blocks, int64_t head) {
  int64_t most = 0;
  for (int v = 0; v < plan.shape.virtual_stages(); ++v)
    most = std::max(most, CostOf(plan, v, blocks, head));
  return most;
}

// The least largest cost over all cuts, by trying them.
int64_t Best(const Costs& blocks, int64_t head, int parts) {
  const std::function<int64_t(size_t, int)> best = [&](size_t begin, int left) -> int64_t {
    if (left == 1) {
      int64_t cost = head;
      for (size_t b = begin; b < blocks.size(); ++b) cost += blocks[b];
      return begin < blocks.size() ? cost : std::numeric_limits<int64_t>::max();
    }
    int64_t least = std::numeric_limits<int64_t>::max(), run = 0;
    for (size_t end = begin + 1; end < blocks.size(); ++end) {
      run += blocks[end - 1];
      least = std::min(least, std::max(run, best(end, left - 1)));
    }
    return least;
  };
  return best(0, parts);
}

TEST(StagePlanTest, LayersNeedNotDivide) {
  // embedding, 5 layers, final norm, a head as costly as two layers
  const auto plan = PlanStages(Costs{0, 10, 10, 10, 10, 10, 0}, 20, {3, 1});
  EXPECT_EQ(plan.begins, (Costs{0, 3, 5, 7}));
  EXPECT_EQ(plan.StageOf(0), 0);
  EXPECT_EQ(plan.StageOf(2), 0);
  EXPECT_EQ(plan.StageOf(3), 1);
  EXPECT_EQ(plan.StageOf(6), 2);
}

TEST(StagePlanTest, AmongTheFastestTheMostEven) {
  // A costly head sets the pace; the layers before it are spread all the same.
  const auto plan = PlanStages(Costs{0, 1, 1, 1, 1, 0}, 100, {3, 1});
  EXPECT_EQ(plan.begins, (Costs{0, 3, 5, 6}));
}

TEST(StagePlanTest, RandomCostsAreCutAtTheOptimum) {
  for (uint64_t n = 0; n < 60; ++n) {
    const auto draw = [&](uint64_t i) { return static_cast<int64_t>(PhiloxBits(n, i, 7) % 20); };
    Costs blocks(2 + PhiloxBits(n, 0, 8) % 7);
    for (size_t b = 0; b < blocks.size(); ++b) blocks[b] = draw(b);
    for (int stages = 1; stages <= static_cast<int>(blocks.size()); ++stages) {
      for (const int chunks : {1, 2}) {
        if (chunks * stages > static_cast<int>(blocks.size()) || (stages == 1 && chunks > 1))
          continue;
        SCOPED_TRACE(absl::StrCat("case ", n, ", ", stages, " × ", chunks));
        const auto plan = PlanStages(blocks, draw(99), {stages, chunks});
        ASSERT_EQ(plan.begins.front(), 0);
        ASSERT_EQ(plan.begins.back(), static_cast<int64_t>(blocks.size()));
        for (size_t v = 0; v + 1 < plan.begins.size(); ++v)
          ASSERT_LT(plan.begins[v], plan.begins[v + 1]) << "a stage holds nothing";
        EXPECT_EQ(Costliest(plan, blocks, draw(99)), Best(blocks, draw(99), stages * chunks));
      }
    }
  }
}

constexpr char kTied[] = R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
  "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 5,
  "query_pre_attn_scalar": 16, "max_position_embeddings": 128,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})";

TEST(StagePlanTest, ATiedEmbeddingStandsOnBothEnds) {
  const auto spec = ParseModelSpec(kTied, "config");
  ASSERT_THAT(spec, testing::IsOk());
  ParameterStore store;
  const Model model = spec->build(store);
  const Costs costs = BlockCosts(model, store);
  EXPECT_EQ(costs.front(), 0);
  EXPECT_EQ(costs.back(), 0);
  EXPECT_EQ(costs[1], 24 * (2 * 16 + 16 + 16) + 2 * 16 * 24 + 3 * 24 * 40);
  EXPECT_EQ(HeadCost(model, store), 61 * 24);

  const auto plan = PlanStages(costs, HeadCost(model, store), {3, 1});
  std::vector<int> holders(store.slots().size(), 0);
  for (int rank = 0; rank < 3; ++rank) {
    for (const int64_t slot : SlotsOfStage(model, plan, rank)) ++holders[static_cast<size_t>(slot)];
  }
  for (size_t s = 0; s < holders.size(); ++s) {
    EXPECT_EQ(holders[s], static_cast<int64_t>(s) == model.head_slot ? 2 : 1)
        << store.slots()[s].name;
  }
}

}  // namespace
}  // namespace osler
