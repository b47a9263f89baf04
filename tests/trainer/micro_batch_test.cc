#include "trainer/micro_batch.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

#include "model/registry.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/trainer/layout_testing.h"
#include "trainer/walk.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;

constexpr char kConfig[] = R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
  "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 5,
  "query_pre_attn_scalar": 16, "max_position_embeddings": 128,
  "layer_types": ["sliding_attention", "full_attention"]})";

// A pack of documents of these lengths.
Pack MakePack(const std::vector<int32_t>& lengths) {
  Pack pack;
  for (const int32_t length : lengths) {
    pack.doc_starts.push_back(static_cast<int32_t>(pack.tokens.size()));
    for (int32_t t = 0; t < length; ++t) pack.tokens.push_back((7 * t + 3 * length) % 61);
  }
  pack.labels = pack.tokens;
  return pack;
}

class MicroBatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto spec = ParseModelSpec(kConfig, "config");
    ASSERT_THAT(spec, IsOk());
    model_ = spec->build(store_);
    InitializeParameters(store_, *spec, 3, at::kDouble);
    for (ParameterSlot& slot : store_.slots()) slot.local.add_(0.05);
  }
  ParameterStore store_;
  Model model_;
};

TEST_F(MicroBatchTest, JoinsPacksAndShiftsLabels) {
  Pack a = MakePack({3, 2}), b = MakePack({4});
  a.labels = {9, kIgnore, 8, 9, 7};
  const std::vector<Pack> packs = {a, b};
  const MicroBatch batch = MakeMicroBatch(model_, packs);
  EXPECT_EQ(batch.tokens, 9);
  EXPECT_EQ(batch.target_tokens, 5);
  ASSERT_EQ(batch.targets_T.size(0), 64);
  const int64_t none = kIgnore;
  EXPECT_TRUE(at::equal(batch.targets_T.narrow(0, 0, 9),
                        at::tensor({none, int64_t{8}, none, int64_t{7}, none, int64_t{b.labels[1]},
                                    int64_t{b.labels[2]}, int64_t{b.labels[3]}, none},
                                   at::kLong)));
  EXPECT_TRUE(at::equal(batch.inputs.positions_T.narrow(0, 0, 9),
                        at::tensor({0, 1, 2, 0, 1, 0, 1, 2, 3}, at::kLong)));
}

TEST_F(MicroBatchTest, FillsUpWithRowsThatSeeNothing) {
  const std::vector<Pack> packs = {MakePack({60, 7})};
  const MicroBatch batch = MakeMicroBatch(model_, packs);
  ASSERT_EQ(batch.inputs.tokens_T.size(0), 128);
  for (const MaskIntervals& mask : batch.inputs.masks) {
    EXPECT_TRUE(at::equal(mask.lo_T.narrow(0, 67, 61), at::full({61}, 67, at::kInt)));
    EXPECT_TRUE(at::equal(mask.hi_T.narrow(0, 66, 62), at::full({62}, 67, at::kInt)));
  }
  EXPECT_TRUE(at::equal(batch.targets_T.narrow(0, 67, 61), at::full({61}, kIgnore, at::kLong)));
}

TEST_F(MicroBatchTest, RowsThatSeeNothingChangeNoLossAndNoGradient) {
  const std::vector<Pack> packs = {MakePack({60, 7})};
  const MicroBatch padded = MakeMicroBatch(model_, packs);
  MicroBatch bare = padded;
  bare.inputs = model_.PrepareInputs(packs[0].tokens, packs[0].doc_starts);
  bare.targets_T = padded.targets_T.narrow(0, 0, 67);
  std::vector<at::Tensor> gradients;
  const LossSum expected = testing::StepAlone(model_, store_, bare, 0.1);
  for (const ParameterSlot& slot : store_.slots()) gradients.push_back(slot.gradient.clone());
  const LossSum loss = testing::StepAlone(model_, store_, padded, 0.1);
  EXPECT_EQ(loss.count, expected.count);
  EXPECT_NEAR(loss.sum, expected.sum, 1e-13 * expected.sum);
  const auto evaluated =
      Walk::Alone(model_, store_, {}).Evaluate(1, [&](int64_t) { return padded; });
  EXPECT_NEAR(evaluated[0].sum, expected.sum, 1e-13 * expected.sum);
  for (size_t i = 0; i < gradients.size(); ++i) {
    const double norm = gradients[i].norm().item<double>();
    EXPECT_GT(norm, 0);
    EXPECT_LE(at::sub(store_.slots()[i].gradient, gradients[i]).norm().item<double>(), 1e-13 * norm)
        << store_.slots()[i].name;
  }
}

TEST_F(MicroBatchTest, EachTensorRankGetsAMultipleOf64) {
  const std::vector<Pack> packs = {MakePack({60, 7})};
  for (const absl::Status& status : testing::RunRanks(3, [&](Communicator& comm) {
         const MicroBatch batch =
             MakeMicroBatch(model_, packs, {.tensor = &comm, .mlp_chunk_tokens = 8});
         EXPECT_EQ(batch.inputs.tokens_T.size(0), 192);
         EXPECT_EQ(batch.inputs.tensor, &comm);
         EXPECT_EQ(batch.inputs.mlp_chunk_tokens, 8);
         return absl::OkStatus();
       })) {
    EXPECT_THAT(status, IsOk());
  }
}

TEST_F(MicroBatchTest, WithoutAPackStillHasRows) {
  const MicroBatch batch = MakeMicroBatch(model_, {});
  EXPECT_EQ(batch.inputs.tokens_T.size(0), 64);
  const LossSum loss = testing::StepAlone(model_, store_, batch, 1);
  EXPECT_EQ(loss.sum, 0);
  EXPECT_EQ(loss.count, 0);
  for (const ParameterSlot& slot : store_.slots())
    EXPECT_EQ(slot.gradient.norm().item<double>(), 0) << slot.name;
}

}  // namespace
}  // namespace osler
