// What each layout sends along each axis in a step is what docs/parallelism.md says: the formulas
// of its section "Bytes sent", computed here from the model, the packs and the layout alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "parallel/context_plan.h"
#include "parallel/context_split.h"
#include "parallel/placement.h"
#include "tests/testing/matchers.h"
#include "trainer/pipeline_schedule.h"
#include "trainer/stage_plan.h"
#include "trainer/verify/verify.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;

constexpr int64_t kElement = 8;  // fp64: values, activations, gradients and their sums
constexpr int64_t kSmall = 4096, kRowMultiple = 64, kChunkTokens = 512;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What all n ranks together send in an all-reduce of so many bytes; and in an all-gather or
// reduce-scatter whose whole has so many.
int64_t AllReduced(int64_t n, int64_t bytes) {
  return bytes <= kSmall ? n * (n - 1) * bytes : 2 * (n - 1) * bytes;
}
int64_t Exchanged(int64_t n, int64_t bytes) { return (n - 1) * bytes; }

using Bytes = std::array<int64_t, kAxes>;

class Expectation {
 public:
  Expectation(const VerifyProblem& problem, const VerifyLayout& layout)
      : problem_(problem),
        layout_(layout),
        model_(problem.spec.build(store_)),
        shape_{.stages = Size(Axis::kPipeline), .chunks = layout.interleave},
        plan_(PlanStages(BlockCosts(model_, store_), HeadCost(model_, store_), shape_)) {
    const int64_t packs = static_cast<int64_t>(problem.steps[0].size());
    passes_ = CeilDiv(packs, Size(Axis::kData) * Size(Axis::kShard));
  }

  Bytes Compute() {
    for (int stage = 0; stage < shape_.stages; ++stage) CountParameters(stage);
    for (const Axis axis : {Axis::kShard, Axis::kTensor, Axis::kPipeline})
      Of(axis) += GroupsAlong(axis) * AllReduced(Size(axis), kElement);  // of the norm
    const int64_t readers = Size(Axis::kData) * Size(Axis::kShard);
    for (int64_t reader = 0; reader < readers; ++reader) {
      for (int64_t m = 0; m < passes_; ++m) {
        const auto g = static_cast<size_t>(m * readers + reader);
        const std::vector<Pack>& packs = problem_.steps[0];
        CountActivations(g < packs.size() ? packs[g] : Pack());
      }
    }
    return bytes_;
  }

 private:
  int Size(Axis axis) const { return layout_.shape.size(axis); }
  int64_t& Of(Axis axis) { return bytes_[static_cast<size_t>(axis)]; }
  int64_t GroupsAlong(Axis axis) const { return layout_.ranks() / Size(axis); }
  // Groups along the axis whose ranks are of one stage.
  int64_t GroupsOfStage(Axis axis) const { return GroupsAlong(axis) / Size(Axis::kPipeline); }

  TensorSlice SliceOf(const ParameterSlot& slot) const {
    return SliceFor(*FindRule(problem_.spec.placements, slot.name), slot.shape, 0,
                    Size(Axis::kTensor));
  }
  int64_t PieceBytes(const ParameterSlot& slot) const {
    int64_t count = 1;
    for (const int64_t dim : SlicedShape(slot.shape, SliceOf(slot))) count *= dim;
    return CeilDiv(count, Size(Axis::kShard)) * kElement;
  }

  // Gradients of what a stage holds, and parameters along the shard axis.
  void CountParameters(int stage) {
    const std::vector<int64_t> slots = SlotsOfStage(model_, plan_, stage);
    std::map<std::pair<int, bool>, int64_t> sums;  // pieces summed over the same groups
    int64_t pieces = 0, gathered = 0;
    const std::map<int64_t, int64_t> visits = GathersOf(stage);
    const auto embedding = model_.blocks[0]->slots()[0];
    for (const int64_t index : slots) {
      const ParameterSlot& slot = store_.slot(index);
      const bool tied = shape_.stages > 1 && index == model_.head_slot && index == embedding;
      sums[{SliceOf(slot).copies, tied}] += PieceBytes(slot);
      pieces += PieceBytes(slot);
      gathered += PieceBytes(slot) * visits.at(index);
    }
    for (const auto& [key, bytes] : sums) {
      // Groups split from an axis' group count for themselves: some of its ranks that hold the same
      // key heads, the two ends of a pipeline that hold a tied embedding.
      if (key.first == Size(Axis::kTensor))
        Of(Axis::kTensor) += GroupsOfStage(Axis::kTensor) * AllReduced(key.first, bytes);
      for (const Axis axis : {Axis::kContext, Axis::kData})
        Of(axis) += GroupsOfStage(axis) * AllReduced(Size(axis), bytes);
    }
    const int64_t shards = Size(Axis::kShard);
    if (shards == 1) return;
    const int64_t scatters = layout_.zero == 1 ? 1 : passes_;
    Of(Axis::kShard) +=
        GroupsOfStage(Axis::kShard) *
        Exchanged(shards, shards * (pieces * scatters + (layout_.zero == 3 ? gathered : pieces)));
  }

  // How often ZeRO 3 gathers each slot in a step: on every visit of a block that does not follow a
  // visit of the same.
  std::map<int64_t, int64_t> GathersOf(int stage) const {
    std::map<int64_t, int64_t> gathers;
    std::set<int64_t> before;
    const auto visit = [&](const std::vector<int64_t>& slots) {
      for (const int64_t slot : slots) gathers[slot] += before.contains(slot) ? 0 : 1;
      before = {slots.begin(), slots.end()};
    };
    for (const PipelineAction& action : PipelineSchedule(shape_, passes_, stage)) {
      const auto [begin, end] = plan_.BlocksOf(plan_.VirtualStage(stage, action.chunk));
      const bool forward = action.kind == PipelineAction::Kind::kForward;
      for (int64_t i = begin; i < end; ++i)
        visit(model_.blocks[static_cast<size_t>(forward ? i : begin + end - 1 - i)]->slots());
      if (forward && end == static_cast<int64_t>(model_.blocks.size())) visit({model_.head_slot});
    }
    return gathers;
  }

  // One reader's micro-batch of one pack or none.
  void CountActivations(const Pack& pack) {
    const auto length = static_cast<int64_t>(pack.tokens.size());
    const std::vector<MaskIntervals> masks = model_.DocumentMasks(pack.doc_starts, length);
    std::vector<int64_t> targets(pack.tokens.size(), kIgnore);
    for (size_t t = 1; t < targets.size(); ++t) {
      const bool starts =
          std::count(pack.doc_starts.begin(), pack.doc_starts.end(), static_cast<int32_t>(t)) > 0;
      if (!starts) targets[t - 1] = pack.labels[t];
    }
    const ContextSplit split = SplitOf(masks, targets);
    for (const TokenRanges& own : split.ranges) CountRows(own, targets);
    if (Size(Axis::kContext) > 1) CountKeys(masks, split, length);
  }

  ContextSplit SplitOf(const std::vector<MaskIntervals>& masks,
                       const std::vector<int64_t>& targets) const {
    std::vector<MaskedLayers> kinds;
    for (size_t k = 0; k < masks.size(); ++k)
      kinds.push_back({masks[k], model_.layer_kinds[k].layers});
    std::vector<int64_t> costs =
        TokenCosts(kinds, static_cast<int64_t>(targets.size()), model_.token_cost);
    for (size_t t = 0; t < costs.size(); ++t)
      costs[t] += targets[t] == kIgnore ? 0 : model_.head_cost;
    return SplitContext(costs, Size(Axis::kContext));
  }

  // Forward passes of a block in a micro-batch.
  int64_t Forwards() const { return layout_.recompute == RecomputeMode::kNone ? 1 : 2; }
  int64_t AttentionForwards() const { return layout_.recompute == RecomputeMode::kFull ? 2 : 1; }

  // Rows between blocks, of one context rank.
  void CountRows(const TokenRanges& own, const std::vector<int64_t>& targets) {
    const int64_t ranks = Size(Axis::kTensor), step = kRowMultiple * ranks;
    const int64_t rows = std::max<int64_t>(1, CeilDiv(TokenCount(own), step)) * step;
    const int64_t activation = rows * model_.hidden_size * kElement;
    Of(Axis::kPipeline) += 2 * (shape_.virtual_stages() - 1) * activation;
    if (ranks == 1) return;
    const int64_t exchanges = (4 * problem_.spec.layers + 1) * (Forwards() + 1);
    Of(Axis::kTensor) += exchanges * Exchanged(ranks, activation);
    // The head: rows with a target, as many places for each rank as the one with most needs.
    std::vector<int64_t> with_target(static_cast<size_t>(ranks), 0);
    int64_t row = 0;
    for (const TokenRange& range : own) {
      for (int64_t t = range.begin; t < range.end; ++t, ++row) {
        if (targets[static_cast<size_t>(t)] != kIgnore)
          ++with_target[static_cast<size_t>(row / (rows / ranks))];
      }
    }
    const int64_t places = ranks * *std::max_element(with_target.begin(), with_target.end());
    ASSERT_LE(places, kChunkTokens) << "one chunk of the head";
    Of(Axis::kTensor) += 2 * Exchanged(ranks, places * model_.hidden_size * kElement) +
                         Exchanged(ranks, ranks * places * 3 * kElement);
  }

  // Keys and values of all layers, of all context ranks together.
  void CountKeys(const std::vector<MaskIntervals>& masks, const ContextSplit& split,
                 int64_t length) {
    const int64_t ranks = Size(Axis::kContext), tensor = Size(Axis::kTensor);
    const int64_t heads = std::max<int64_t>(1, problem_.spec.key_value_heads / tensor);
    const int64_t key = 2 * heads * model_.head_dim * kElement;
    // Forward passes bring keys; the backward pass brings them again and their gradients home.
    const int64_t trips = AttentionForwards() + 2;
    for (size_t k = 0; k < masks.size(); ++k) {
      const Model::LayerKind& kind = model_.layer_kinds[k];
      const bool ring = layout_.context_method == ContextMethod::kRing && !kind.window.has_value();
      int64_t travelling = (ranks - 1) * length;
      if (!ring) {
        travelling = 0;
        for (const TokenRanges& own : split.ranges) {
          const TokenRanges seen = SeenKeys(masks[k], own);
          travelling += TokenCount(seen) - TokenCount(Common(seen, own));
        }
      }
      Of(Axis::kContext) += tensor * kind.layers * trips * travelling * key;
    }
  }

  const VerifyProblem& problem_;
  const VerifyLayout& layout_;
  ParameterStore store_;
  const Model model_;
  const PipelineShape shape_;
  const StagePlan plan_;
  int64_t passes_ = 0;  // of each reader
  Bytes bytes_{};
};

class TrafficTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TrafficTest, IsWhatTheFormulasSay) {
  const auto problem = MakeVerifyProblem(GetParam(), "config.json", 0);
  ASSERT_THAT(problem, IsOk());
  const auto reference = ComputeVerifyReference(*problem);
  ASSERT_THAT(reference, IsOk());
  const auto layouts = ParseVerifyLayouts(StandardVerifyLayouts());
  ASSERT_THAT(layouts, IsOk());
  for (const VerifyLayout& layout : *layouts) {
    const auto result = VerifyOnThreads(*problem, *reference, layout);
    ASSERT_THAT(result, IsOk()) << layout.name;
    EXPECT_EQ(result->bytes, Expectation(*problem, layout).Compute()) << layout.name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, TrafficTest,
    ::testing::Values(R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
                         "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 512})",
                      R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
                         "num_attention_heads": 16, "num_key_value_heads": 4})"));

}  // namespace
}  // namespace osler
