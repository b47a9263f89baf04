// Loading a model directory under a layout: each rank has its parts of what one rank loads.
#include "trainer/weights.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "base/errors.h"
#include "checkpoint/safetensors.h"
#include "parallel/tensor_part.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;
using ::osler::testing::TempDir;

constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "vocab_size": 62, "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 1e-5,
  "max_position_embeddings": 64, "tie_word_embeddings": false})";

class WeightsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto spec = ParseModelSpec(kConfig, "config");
    ASSERT_THAT(spec.status(), IsOk());
    spec_ = *std::move(spec);
    ParameterStore store;
    spec_.build(store);
    InitializeParameters(store, spec_, 9, at::kBFloat16);
    std::vector<TensorToWrite> tensors;
    for (const ParameterSlot& slot : store.slots())
      tensors.push_back(ToWrite(slot.name, slot.local));
    ASSERT_THAT(WriteSafetensors(*fs_, directory_.File("model.safetensors"), tensors, {}).status(),
                IsOk());
  }
  absl::Status Load(const StoreLayout& layout, ParameterStore& store) {
    spec_.build(store);
    store.LayOut(layout);
    return LoadWeights(*fs_, directory_.path(), spec_, at::kFloat, store);
  }

  std::unique_ptr<Fs> fs_ = MakePosixFs();
  TempDir directory_;
  ModelSpec spec_;
};

TEST_F(WeightsTest, EachRankHasItsParts) {
  ParameterStore one;
  ASSERT_THAT(Load({}, one), IsOk());
  for (const ZeroLevel zero : {ZeroLevel::kOptimizer, ZeroLevel::kParameters}) {
    for (int rank = 0; rank < 6; ++rank) {
      ParameterStore part;
      ASSERT_THAT(Load({.placements = spec_.placements,
                        .tensor_rank = rank % 2,
                        .tensor_size = 2,
                        .shard_rank = rank / 2,
                        .shard_size = 3,
                        .zero = zero,
                        .stage = std::nullopt},
                       part),
                  IsOk());
      for (size_t i = 0; i < part.slots().size(); ++i) {
        const ParameterSlot &slot = part.slots()[i], &whole = one.slots()[i];
        at::Tensor expected = at::zeros(slot.piece.sizes(), slot.piece.options());
        TakePart(whole.local, slot.slice, part.PieceBegin(static_cast<int64_t>(i)), expected);
        EXPECT_TRUE(at::equal(slot.piece, expected)) << slot.name;
        if (part.cuts_parameters()) {
          EXPECT_EQ(slot.local.storage().data(), nullptr) << slot.name;
        } else {
          EXPECT_TRUE(at::equal(slot.local, Narrow(whole.local, slot.slice))) << slot.name;
        }
      }
    }
  }
}

TEST_F(WeightsTest, OtherStagesAreCheckedAndNotLoaded) {
  ParameterStore store;
  ASSERT_THAT(Load({.placements = {}, .stage = std::vector<int64_t>{0}}, store), IsOk());
  EXPECT_TRUE(store.slot(0).local.defined());
  EXPECT_FALSE(store.slot(1).local.defined());
  ParameterStore other;
  other.Declare("unknown", {3});
  const absl::Status status = LoadWeights(*fs_, directory_.path(), spec_, at::kFloat, other);
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kConfig);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("unexpected tensor"));
}

}  // namespace
}  // namespace osler
