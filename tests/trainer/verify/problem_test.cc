#include "trainer/verify/problem.h"

#include <ATen/ops/linalg_vector_norm.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "base/errors.h"
#include "tests/testing/matchers.h"
#include "trainer/verify/tiny_model.h"
#include "trainer/walk.h"

namespace osler {
namespace {

using nlohmann::json;
using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::testing::HasSubstr;

json Llama(int heads, int kv_heads) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 128256},
          {"hidden_size", heads * 128},
          {"intermediate_size", 14336},
          {"num_hidden_layers", 32},
          {"num_attention_heads", heads},
          {"num_key_value_heads", kv_heads},
          {"tie_word_embeddings", false}};
}

struct HeadsCase {
  int heads, kv_heads, tiny_heads, tiny_kv_heads;
};
class TinyHeadsTest : public ::testing::TestWithParam<HeadsCase> {};

TEST_P(TinyHeadsTest, KeepTheirRatioAndDivideByFour) {
  const HeadsCase c = GetParam();
  const auto tiny = TinyConfig(Llama(c.heads, c.kv_heads).dump(), "config.json");
  ASSERT_THAT(tiny, IsOk());
  const json config = json::parse(*tiny);
  EXPECT_EQ(config["num_attention_heads"], c.tiny_heads);
  EXPECT_EQ(config["num_key_value_heads"], c.tiny_kv_heads);
  EXPECT_THAT(ParseModelSpec(*tiny, "tiny"), IsOk());
}

INSTANTIATE_TEST_SUITE_P(All, TinyHeadsTest,
                         ::testing::Values(HeadsCase{32, 32, 4, 4}, HeadsCase{32, 8, 8, 2},
                                           HeadsCase{24, 8, 12, 4}, HeadsCase{14, 2, 28, 4},
                                           HeadsCase{4, 1, 4, 1}, HeadsCase{64, 4, 16, 2}));

TEST(TinyConfigTest, KeepsTheKindsOfLayersAndTheRope) {
  const auto tiny = TinyConfig(
      R"({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
          "text_config": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
            "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "num_hidden_layers": 4, "layer_types": ["sliding_attention", "sliding_attention",
              "sliding_attention", "full_attention"]},
          "vision_config": {"hidden_size": 1152}})",
      "config.json");
  ASSERT_THAT(tiny, IsOk());
  const json text = json::parse(*tiny)["text_config"];
  EXPECT_EQ(text["layer_types"][0], "sliding_attention");
  EXPECT_EQ(text["layer_types"][1], "full_attention");
  EXPECT_EQ(text["layer_types"].size(), text["num_hidden_layers"]);
  EXPECT_EQ(text["rope_scaling"]["factor"], 8.0);
  EXPECT_LT(text["sliding_window"], 10);
}

TEST(TinyConfigTest, RefusesWhatTheModelReaderRefuses) {
  EXPECT_THAT(TinyConfig("{", "x/config.json"),
              Fails(ExitCode::kConfig, HasSubstr("x/config.json")));
  EXPECT_THAT(TinyConfig(R"({"architectures": ["BertModel"]})", "x/config.json"),
              Fails(ExitCode::kConfig, HasSubstr("supported")));
}

TEST(VerifyProblemTest, EveryParameterIsRandomAndEveryKindOfPackIsThere) {
  const auto problem = MakeVerifyProblem(Llama(32, 8).dump(), "config.json", 1);
  ASSERT_THAT(problem, IsOk());
  for (const auto& [name, value] : problem->parameters) {
    EXPECT_GT(at::linalg_vector_norm(value.sub(value.flatten()[0])).item<double>(), 0) << name;
  }
  size_t fewest = 100;
  int64_t without_target = 0, single_tokens = 0, long_documents = 0;
  for (const std::vector<Pack>& packs : problem->steps) {
    fewest = std::min(fewest, packs.size());
    for (const Pack& pack : packs) {
      without_target += CountTargets(pack) == 0 ? 1 : 0;
      for (size_t d = 0; d < pack.doc_starts.size(); ++d) {
        const size_t end = d + 1 < pack.doc_starts.size()
                               ? static_cast<size_t>(pack.doc_starts[d + 1])
                               : pack.tokens.size();
        const size_t length = end - static_cast<size_t>(pack.doc_starts[d]);
        single_tokens += length == 1 ? 1 : 0;
        long_documents += length > 21 ? 1 : 0;  // three windows
      }
    }
  }
  EXPECT_EQ(fewest, 1u);
  EXPECT_GE(without_target, 1);
  EXPECT_GE(single_tokens, 1);
  EXPECT_GE(long_documents, 5);
  // Another seed is another problem.
  const auto other = MakeVerifyProblem(Llama(32, 8).dump(), "config.json", 2);
  ASSERT_THAT(other, IsOk());
  EXPECT_NE(other->steps[0][0].tokens, problem->steps[0][0].tokens);
}

}  // namespace
}  // namespace osler
