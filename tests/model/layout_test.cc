#include "model/layout.h"

#include <gtest/gtest.h>

#include <string>

#include "base/errors.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;

ModelSpec Sizes(int64_t heads, int64_t key_value_heads, int64_t intermediate_size,
                int64_t vocab_size, int64_t layers) {
  ModelSpec spec;
  spec.family = "llama";
  spec.heads = heads;
  spec.key_value_heads = key_value_heads;
  spec.intermediate_size = intermediate_size;
  spec.vocab_size = vocab_size;
  spec.layers = layers;
  return spec;
}

absl::Status Tensor(const ModelSpec& spec, int size) {
  return CheckLayout(spec, {.sizes = {1, 1, 1, 1, size}});
}

TEST(Layout, NamesTheNumberTheAxisAndTheNearestSizes) {
  const ModelSpec spec = Sizes(8, 2, 64, 96, 4);
  for (const int size : {1, 2, 4, 8}) EXPECT_THAT(Tensor(spec, size), IsOk()) << size;
  EXPECT_THAT(Tensor(spec, 3), Fails(ExitCode::kConfig,
                                     HasSubstr("mesh.tensor 3 does not divide 8 attention heads of "
                                               "llama; nearest valid: 2, 4")));
  EXPECT_THAT(Tensor(spec, 16),
              Fails(ExitCode::kConfig, ::testing::EndsWith("; nearest valid: 8")));
}

TEST(Layout, KeyHeadsDivideOrAreDivided) {
  const ModelSpec spec = Sizes(24, 6, 24, 24, 4);
  for (const int size : {1, 2, 3, 6, 12, 24}) EXPECT_THAT(Tensor(spec, size), IsOk()) << size;
  EXPECT_THAT(Tensor(spec, 4), Fails(ExitCode::kConfig,
                                     HasSubstr("mesh.tensor 4 neither divides 6 key/value heads of "
                                               "llama nor is a multiple of them; nearest valid: "
                                               "3, 6")));
  EXPECT_THAT(Tensor(spec, 8), Fails(ExitCode::kConfig, HasSubstr("nearest valid: 6, 12")));
}

// A suggestion must pass every rule, not the broken one alone.
TEST(Layout, WidthAndVocabularyDivideToo) {
  EXPECT_THAT(Tensor(Sizes(12, 12, 36, 36, 4), 2), IsOk());
  EXPECT_THAT(Tensor(Sizes(12, 12, 27, 36, 4), 2),
              Fails(ExitCode::kConfig, HasSubstr("mesh.tensor 2 does not divide 27 intermediate "
                                                 "columns of llama; nearest valid: 1, 3")));
  EXPECT_THAT(Tensor(Sizes(12, 12, 36, 33, 4), 4),
              Fails(ExitCode::kConfig, HasSubstr("mesh.tensor 4 does not divide 33 vocabulary rows "
                                                 "of llama; nearest valid: 3")));
}

TEST(Layout, EveryChunkOfThePipelineHasALayer) {
  const ModelSpec spec = Sizes(4, 4, 4, 4, 6);
  const auto stages = [&](int count, int64_t chunks) {
    return CheckLayout(spec, {.sizes = {count, 1, 1, 1, 1}}, chunks);
  };
  for (const int count : {1, 2, 4, 5, 6}) EXPECT_THAT(stages(count, 1), IsOk()) << count;
  EXPECT_THAT(stages(3, 2), IsOk());
  EXPECT_THAT(stages(1, 100), IsOk());  // one stage has no chunks
  EXPECT_THAT(stages(7, 1),
              Fails(ExitCode::kConfig, HasSubstr("mesh.pipeline 7 needs 7 layers, but llama has 6; "
                                                 "nearest valid: 6")));
  EXPECT_THAT(stages(4, 2), Fails(ExitCode::kConfig,
                                  HasSubstr("mesh.pipeline 4 with 2 chunks a stage needs 8 layers, "
                                            "but llama has 6; nearest valid: 3 with 2 chunks")));
  EXPECT_THAT(stages(2, 4), Fails(ExitCode::kConfig, HasSubstr("no pipeline")));
}

TEST(Layout, OtherAxesTakeAnySize) {
  EXPECT_THAT(CheckLayout(Sizes(4, 2, 6, 10, 2), {.sizes = {1, 7, 11, 13, 1}}), IsOk());
}

}  // namespace
}  // namespace osler
