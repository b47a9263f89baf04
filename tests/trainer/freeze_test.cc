// The walk over a partly frozen model: the same gradients for what is trained, none for the rest,
// and no graph below the lowest trained block.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/philox.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"
#include "tests/trainer/layout_testing.h"
#include "trainer/walk.h"

namespace osler {
namespace {

constexpr char kConfig[] = R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
  "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 5,
  "query_pre_attn_scalar": 16, "max_position_embeddings": 128, "tie_word_embeddings": false,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})";

// What a block's Forward was asked to keep.
struct Visit {
  std::string block;
  bool graph, input;
  bool operator==(const Visit&) const = default;
};

class RecordingBlock : public Block {
 public:
  RecordingBlock(std::unique_ptr<Block> inner, std::vector<Visit>& visits)
      : inner_(std::move(inner)), visits_(visits) {}
  const std::vector<int64_t>& slots() const override { return inner_->slots(); }
  std::string name() const override { return inner_->name(); }
  Activations Forward(const Activations& input, const SlotView& parameters,
                      const SequenceInputs& inputs, BlockMemo* memo) const override {
    visits_.push_back(
        {name(), at::GradMode::is_enabled(), input.x_TD.defined() && input.x_TD.requires_grad()});
    return inner_->Forward(input, parameters, inputs, memo);
  }

 private:
  std::unique_ptr<Block> inner_;
  std::vector<Visit>& visits_;
};

struct Outcome {
  std::map<std::string, at::Tensor> gradients;  // where there is one
  std::vector<Visit> visits;
};

Pack MakePack() {
  Pack pack;
  for (uint64_t t = 0; t < 24; ++t) {
    pack.tokens.push_back(static_cast<int32_t>(PhiloxBits(3, t, 1) % 61));
  }
  pack.labels = pack.tokens;
  pack.doc_starts = {0, 11};
  return pack;
}

Outcome WalkOnce(const std::vector<std::string>& trained, RecomputeMode recompute) {
  Outcome outcome;
  auto spec = *ParseModelSpec(kConfig, "config");
  ParameterStore store;
  Model model = spec.build(store);
  InitializeParameters(store, spec, 3, at::kDouble);
  for (ParameterSlot& slot : store.slots()) {
    slot.local.add_(0.05);
    slot.trainable = trained.empty();
    for (const std::string& prefix : trained) {
      slot.trainable = slot.trainable || slot.name.starts_with(prefix);
    }
  }
  for (auto& block : model.blocks) {
    block = std::make_unique<RecordingBlock>(std::move(block), outcome.visits);
  }
  const Pack pack = MakePack();
  testing::StepAlone(model, store, MakeMicroBatch(model, {&pack, 1}), 1.0,
                     {.recompute = recompute});
  for (const ParameterSlot& slot : store.slots()) {
    if (slot.gradient.defined()) outcome.gradients[slot.name] = slot.gradient;
  }
  return outcome;
}

class FreezeTest : public ::testing::TestWithParam<RecomputeMode> {};

TEST_P(FreezeTest, TrainedParametersHaveTheSameGradientsAndFrozenOnesNone) {
  const Outcome all = WalkOnce({}, GetParam());
  ASSERT_EQ(all.gradients.size(), 42u);
  const std::vector<std::vector<std::string>> cases = {
      {"model.layers.1."},
      {"model.layers.2.mlp.gate_proj"},
      {"model.layers.0.self_attn.v_proj", "model.norm"},
      {"model.embed_tokens"},
      {"lm_head"}};
  for (const auto& trained : cases) {
    const Outcome some = WalkOnce(trained, GetParam());
    EXPECT_FALSE(some.gradients.empty());
    for (const auto& [name, gradient] : all.gradients) {
      bool is_trained = false;
      for (const std::string& prefix : trained) is_trained = is_trained || name.starts_with(prefix);
      ASSERT_EQ(some.gradients.contains(name), is_trained) << name;
      if (is_trained) {
        EXPECT_GT(gradient.abs().sum().item<double>(), 0) << name;
        EXPECT_TRUE(some.gradients.at(name).allclose(gradient, 1e-12, 1e-14)) << name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, FreezeTest,
                         ::testing::Values(RecomputeMode::kNone, RecomputeMode::kSelective,
                                           RecomputeMode::kFull));

TEST(FreezeGraphTest, BlocksBelowTheLowestTrainedOneKeepNoGraph) {
  const Outcome some = WalkOnce({"model.layers.1.mlp.up_proj"}, RecomputeMode::kNone);
  EXPECT_EQ(some.visits, (std::vector<Visit>{{"embedding", false, false},
                                             {"layer.0", false, false},
                                             {"layer.1", true, false},
                                             {"layer.2", true, true},
                                             {"final_norm", true, true}}));
  const Outcome again = WalkOnce({"model.layers.1.mlp.up_proj"}, RecomputeMode::kFull);
  ASSERT_EQ(again.visits.size(), 8u) << "three blocks are computed again, the lowest two are not";
  EXPECT_EQ(again.visits.back(), (Visit{"layer.1", true, false}));
  EXPECT_EQ(WalkOnce({"lm_head"}, RecomputeMode::kFull).visits.size(), 5u);
}

}  // namespace
}  // namespace osler
