// Initial values under every layout.
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "model/registry.h"
#include "parallel/tensor_part.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "vocab_size": 62, "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 1,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5,
  "max_position_embeddings": 64, "tie_word_embeddings": false})";

// Every rank's own elements alone make up the values that one rank draws.
TEST(InitializeParametersTest, ValuesDoNotDependOnTheLayout) {
  const auto spec = ParseModelSpec(kConfig, "config");
  ASSERT_THAT(spec, ::osler::testing::IsOk());
  ParameterStore one;
  spec->build(one);
  InitializeParameters(one, *spec, 5, at::kDouble);
  for (const int tensor : {1, 2}) {
    for (const int shard : {1, 2, 3}) {
      std::vector<at::Tensor> wholes;
      for (const ParameterSlot& slot : one.slots())
        wholes.push_back(at::zeros(slot.shape, at::kDouble));
      for (int rank = 0; rank < tensor * shard; ++rank) {
        ParameterStore part;
        spec->build(part);
        part.LayOut({.placements = spec->placements,
                     .tensor_rank = rank % tensor,
                     .tensor_size = tensor,
                     .shard_rank = rank / tensor,
                     .shard_size = shard,
                     .zero = ZeroLevel::kParameters,
                     .stage = std::nullopt});
        InitializeParameters(part, *spec, 5, at::kDouble);
        for (size_t i = 0; i < part.slots().size(); ++i) {
          const ParameterSlot& slot = part.slots()[i];
          PutPart(slot.piece, slot.slice, part.PieceBegin(static_cast<int64_t>(i)), wholes[i]);
        }
      }
      for (size_t i = 0; i < wholes.size(); ++i) {
        EXPECT_TRUE(at::equal(wholes[i], one.slots()[i].local)) << one.slots()[i].name;
      }
    }
  }
}

TEST(ParameterStoreTest, OtherStagesHaveNoValues) {
  const auto spec = ParseModelSpec(kConfig, "config");
  ASSERT_THAT(spec, ::osler::testing::IsOk());
  ParameterStore store;
  spec->build(store);
  store.LayOut({.placements = {}, .stage = std::vector<int64_t>{1, 2}});
  InitializeParameters(store, *spec, 5, at::kFloat);
  for (size_t i = 0; i < store.slots().size(); ++i) {
    EXPECT_EQ(store.slots()[i].present, i == 1 || i == 2);
    EXPECT_EQ(store.slots()[i].local.defined(), store.slots()[i].present);
  }
}

}  // namespace
}  // namespace osler
