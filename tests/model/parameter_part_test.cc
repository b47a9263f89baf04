// Parts of slices against views of the whole tensor.
#include "model/parameter_part.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "model/registry.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

struct Case {
  std::vector<int64_t> shape;
  Split split;
  int tensor = 1;
  int64_t unit = 1;
};
const Case kCases[] = {
    {{7, 5}, Split::kReplicated},       {{8, 5}, Split::kColumn, 2},
    {{8, 5}, Split::kColumn, 4, 2},     {{4, 6}, Split::kColumn, 4, 2},  // two share a unit
    {{5, 8}, Split::kRow, 2},           {{5, 12}, Split::kRow, 3},
    {{9}, Split::kColumn, 3},           {{11}, Split::kReplicated, 2},
    {{6, 2, 3}, Split::kVocabulary, 2},
};

class ParameterPartTest : public ::testing::TestWithParam<Case> {};

TEST_P(ParameterPartTest, TakesAndPutsWhatIsOfTheSliceAndNothingElse) {
  const Case& c = GetParam();
  const PlacementRule rule{"w", c.split, c.unit};
  const at::Tensor whole =
      at::arange(1, c10::multiply_integers(c.shape) + 1, at::kDouble).view(c.shape);
  for (const int64_t shards : {1, 2, 3, 4, 7}) {
    at::Tensor rebuilt = at::zeros(c.shape, at::kDouble);
    for (int t = 0; t < c.tensor; ++t) {
      const TensorSlice slice = SliceFor(rule, c.shape, t, c.tensor);
      const at::Tensor local = Narrow(whole, slice).flatten();
      const int64_t each = (local.numel() + shards - 1) / shards;
      const at::Tensor padded = at::cat({local, at::full({each * shards - local.numel()}, -1.0)});
      for (int64_t s = 0; s < shards; ++s) {
        at::Tensor part = at::full({each}, -1, at::kDouble);
        TakePart(whole, slice, s * each, part);
        EXPECT_TRUE(at::equal(part, padded.narrow(0, s * each, each))) << shards << " " << s;
        PutPart(part, slice, s * each, rebuilt);
      }
    }
    EXPECT_TRUE(at::equal(rebuilt, whole)) << shards;
  }
}

TEST_P(ParameterPartTest, RectanglesAreFew) {
  const Case& c = GetParam();
  const TensorSlice slice = SliceFor({"w", c.split, c.unit}, c.shape, 0, c.tensor);
  EXPECT_LE(RectanglesOf(c.shape, slice, 1, c10::multiply_integers(c.shape) - 1).size(), 3U);
  EXPECT_TRUE(RectanglesOf(c.shape, slice, 4, 4).empty());
}

INSTANTIATE_TEST_SUITE_P(Shapes, ParameterPartTest, ::testing::ValuesIn(kCases));

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
