#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/philox.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"
#include "trainer/generate/generator.h"
#include "trainer/generate/sampler.h"

namespace osler {
namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Sampler, DrawsWithTheProbabilitiesOfItsCandidates) {
  const std::vector<double> logits = {0.0, std::log(3.0), -INFINITY, std::log(4.0)};
  const std::vector<Candidate> candidates = Candidates(logits, {.temperature = 1});
  constexpr int kDraws = 40000;
  std::vector<int> counts(4);
  for (uint64_t i = 0; i < kDraws; ++i)
    ++counts[static_cast<size_t>(Pick(candidates, PhiloxUniform(7, i)))];
  const double expected[] = {1.0 / 8, 3.0 / 8, 0, 4.0 / 8};
  for (size_t id = 0; id < 4; ++id) {
    const double p = expected[id];
    EXPECT_NEAR(counts[id], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p))) << id;
  }
}

TEST(Sampler, PicksByTheCumulativeDistribution) {
  const std::vector<Candidate> candidates = {{3, 0.25}, {5, 0.5}, {9, 0.25}};
  EXPECT_EQ(Pick(candidates, 0), 3);
  EXPECT_EQ(Pick(candidates, 0.2499), 3);
  EXPECT_EQ(Pick(candidates, 0.25), 5);
  EXPECT_EQ(Pick(candidates, 0.75), 9);
  // A sum short of 1 by rounding still ends at a possible token.
  EXPECT_EQ(Pick(std::vector<Candidate>{{1, 0.5}, {2, 0.4}, {3, 0}}, 0.95), 2);
}

TEST(Sampler, RefusesOptionsThatMeanNothing) {
  EXPECT_THAT(CheckSampling({.temperature = 0.5, .top_k = 3, .top_p = 0.1}), IsOk());
  for (const SamplingOptions& bad :
       {SamplingOptions{-1, 0, 1}, SamplingOptions{NAN, 0, 1}, SamplingOptions{1, -1, 1},
        SamplingOptions{1, 0, 0}, SamplingOptions{1, 0, 1.1}}) {
    EXPECT_EQ(ExitCodeOf(CheckSampling(bad)), ExitCode::kConfig);
  }
}

TEST(EndIds, ComeFromGenerationConfigThenConfig) {
  const testing::TempDir dir;
  const auto fs = MakePosixFs();
  const auto ids = [&] { return LoadEndIds(*fs, dir.path()); };
  const auto write = [&](const char* name, const std::string& text) {
    EXPECT_THAT(WriteFileDurably(*fs, JoinPath(dir.path(), name), text), IsOk());
  };
  EXPECT_THAT(ids().value(), IsEmpty());
  write("config.json", R"({"text_config": {"eos_token_id": 4}})");
  EXPECT_THAT(ids().value(), ElementsAre(4));
  write("config.json", R"({"eos_token_id": [5, 6], "text_config": {"eos_token_id": 4}})");
  EXPECT_THAT(ids().value(), ElementsAre(5, 6));
  write("generation_config.json", R"({"eos_token_id": null})");
  EXPECT_THAT(ids().value(), ElementsAre(5, 6));
  write("generation_config.json", R"({"eos_token_id": [1, 106]})");
  EXPECT_THAT(ids().value(), ElementsAre(1, 106));
  for (const char* bad : {"\"1\"", "-1", "[1, 2.5]", "4294967296", "{}"}) {
    write("generation_config.json", std::string("{\"eos_token_id\": ") + bad + "}");
    EXPECT_THAT(ids(), Fails(ExitCode::kConfig,
                             AllOf(HasSubstr("generation_config.json"), HasSubstr("eos_token_id"))))
        << bad;
  }
  write("generation_config.json", "[");
  EXPECT_THAT(ids(), Fails(ExitCode::kConfig, HasSubstr("generation_config.json")));
}

}  // namespace
}  // namespace osler
