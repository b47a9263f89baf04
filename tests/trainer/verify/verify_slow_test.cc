// The harness itself: every family's layouts equal one rank, and a difference is told by its name.
#include "trainer/verify/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "base/errors.h"
#include "tests/testing/matchers.h"
#include "trainer/verify/report.h"

namespace osler {
namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Family {
  std::string name, config;
};

std::vector<Family> Families() {
  return {{"gemma3", R"({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
             "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 512})"},
          {"llama", R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
             "num_attention_heads": 32, "num_key_value_heads": 8, "rope_scaling": {"factor": 8.0,
             "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
             "original_max_position_embeddings": 8192}})"},
          {"qwen2", R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
             "hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2,
             "tie_word_embeddings": true})"},
          {"qwen3", R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
             "num_attention_heads": 16, "num_key_value_heads": 8})"}};
}

class VerifyFamilyTest : public ::testing::TestWithParam<Family> {};

TEST_P(VerifyFamilyTest, EveryStandardLayoutIsOneRank) {
  const auto problem = MakeVerifyProblem(GetParam().config, "config.json", 0);
  ASSERT_THAT(problem, IsOk());
  const auto reference = ComputeVerifyReference(*problem);
  ASSERT_THAT(reference, IsOk());
  const auto layouts = ParseVerifyLayouts(StandardVerifyLayouts());
  ASSERT_THAT(layouts, IsOk());
  for (const VerifyLayout& layout : *layouts) {
    const auto result = VerifyOnThreads(*problem, *reference, layout);
    ASSERT_THAT(result, IsOk()) << layout.name;
    EXPECT_THAT(result->Failures(), IsEmpty()) << layout.name;
    EXPECT_EQ(result->gradients.size(), problem->parameters.size());
    EXPECT_EQ(result->losses.size(), problem->steps.size());
  }
}

INSTANTIATE_TEST_SUITE_P(All, VerifyFamilyTest, ::testing::ValuesIn(Families()),
                         [](const auto& info) { return info.param.name; });

TEST(VerifyTest, AReferenceIsFixedByItsSeed) {
  const Family family = Families()[0];
  const auto problem = MakeVerifyProblem(family.config, "config.json", 5);
  ASSERT_THAT(problem, IsOk());
  const auto once = ComputeVerifyReference(*problem), again = ComputeVerifyReference(*problem);
  ASSERT_THAT(once, IsOk());
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(once->losses, again->losses);
  EXPECT_EQ(once->norms, again->norms);
  for (const double norm : once->norms) EXPECT_GT(norm, problem->clip_norm);
}

TEST(VerifyTest, ALayoutThatDoesNotFitIsAConfigError) {
  const auto problem = MakeVerifyProblem(Families()[1].config, "config.json", 0);
  ASSERT_THAT(problem, IsOk());
  const auto reference = ComputeVerifyReference(*problem);
  ASSERT_THAT(reference, IsOk());
  for (const char* text : {"tensor3", "pipeline64"}) {
    const auto layout = ParseVerifyLayout(text);
    ASSERT_THAT(layout, IsOk());
    EXPECT_THAT(
        VerifyOnThreads(*problem, *reference, *layout),
        Fails(ExitCode::kConfig, HasSubstr(text == std::string("tensor3") ? "head" : "layer")))
        << text;
  }
}

VerifyResult Sample() {
  VerifyResult result;
  result.layout = *ParseVerifyLayout("tensor2");
  result.gradients = {{"a", 1e-16, 1e-10}, {"b", 2e-16, 1e-10}};
  result.parameters = {{"a", 1e-16, 1e-9}, {"b", 1e-16, 1e-9}};
  result.losses = {{"loss of step 1", 0, 1e-11}};
  result.norms = {{"norm of step 1", 0, 1e-11}};
  return result;
}

TEST(VerifyResultTest, TellsTheWorstFirst) {
  VerifyResult result = Sample();
  EXPECT_THAT(result.Failures(), IsEmpty());
  EXPECT_THAT(VerifyTableRow(result), HasSubstr(" ok "));
  result.gradients[0].relative = 1e-9;
  result.norms[0].relative = 0.5;
  EXPECT_THAT(result.Failures(), ElementsAre("gradient norm of step 1", "gradient of a"));
  EXPECT_THAT(VerifyTableRow(result), HasSubstr("FAILED"));
  EXPECT_THAT(VerifyJsonLine(result), HasSubstr("\"ok\":false"));
}

TEST(VerifyResultTest, WhatIsNoNumberIsADifference) {
  VerifyResult result = Sample();
  result.parameters[1].relative = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(result.Failures(), ElementsAre("last value of b"));
  EXPECT_THAT(VerifyJsonLine(result),
              HasSubstr(R"("worst_parameter":{"name":"b","relative":null})"));
}

}  // namespace
}  // namespace osler
