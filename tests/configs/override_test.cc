// --set a.b=value on top of a file.
#include <gtest/gtest.h>

#include "configs/config.h"
#include "tests/configs/examples.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::StatusOr<config::Train> With(const std::vector<std::string>& overrides) {
  return ParseTrainConfig(testing::kTrainExample, "train.yaml", overrides);
}

TEST(OverrideTest, ReplacesScalarsOfEveryKind) {
  ASSERT_OK_AND_ASSIGN(
      const config::Train c,
      With({"optimizer.lr=2e-4", "train.steps=7", "train.seed=18446744073709551615",
            "data.packing=false", "train.precision=bf16", "train.output=a/b=c", "mesh.data=4",
            "model.path='x: y'"}));
  EXPECT_EQ(c.optimizer().lr(), 2e-4);
  EXPECT_EQ(c.train().steps(), 7);
  EXPECT_EQ(c.train().seed(), ~uint64_t{0});
  EXPECT_FALSE(c.data().packing());
  EXPECT_EQ(c.train().precision(), config::BF16);
  EXPECT_EQ(c.train().output(), "a/b=c");
  EXPECT_EQ(c.mesh().data(), 4);
  EXPECT_EQ(c.model().path(), "x: y");
}

TEST(OverrideTest, TheLastOneWins) {
  ASSERT_OK_AND_ASSIGN(const config::Train c, With({"train.steps=7", "train.steps=8"}));
  EXPECT_EQ(c.train().steps(), 8);
}

TEST(OverrideTest, MakesMissingParents) {
  ASSERT_OK_AND_ASSIGN(const config::Train c,
                       ParseTrainConfig("model: {path: m}\n", "train.yaml",
                                        {"train.steps=1", "train.output=r", "data.train.0.path=d",
                                         "schedule.type=linear"}));
  EXPECT_EQ(c.data().train(0).path(), "d");
  EXPECT_EQ(c.schedule().type(), config::LINEAR);
}

TEST(OverrideTest, ReplacesWholeListsAndMaps) {
  ASSERT_OK_AND_ASSIGN(const config::Train c, With({"optimizer.betas=[0.8, 0.99]",
                                                    "data.train=[{path: a}, {path: b, weight: 3}]",
                                                    "schedule={type: constant}"}));
  EXPECT_THAT(c.optimizer().betas(), ElementsAre(0.8, 0.99));
  ASSERT_EQ(c.data().train_size(), 2);
  EXPECT_EQ(c.data().train(1).weight(), 3);
  EXPECT_EQ(c.schedule().type(), config::CONSTANT);
  EXPECT_EQ(c.schedule().warmup_steps(), 0);  // the file's schedule is gone
}

TEST(OverrideTest, ReachesIntoLists) {
  ASSERT_OK_AND_ASSIGN(
      const config::Train c,
      With({"data.train.0.weight=2", "data.train.1={path: second}", "optimizer.betas.1=0.5"}));
  ASSERT_EQ(c.data().train_size(), 2);
  EXPECT_EQ(c.data().train(0).path(), "SHARDS/train");
  EXPECT_EQ(c.data().train(0).weight(), 2);
  EXPECT_EQ(c.data().train(1).path(), "second");
  EXPECT_THAT(c.optimizer().betas(), ElementsAre(0.9, 0.5));
}

TEST(OverrideTest, MistakesNameTheFlag) {
  const struct {
    const char* flag;
    const char* message;
  } kCases[] = {
      {"optimizer.lrr=1", "unknown key 'optimizer.lrr'; did you mean 'lr'?"},
      {"optimiser.lr=1", "unknown key 'optimiser'; did you mean 'optimizer'?"},
      {"optimizer.lr=fast", "optimizer.lr: expected a number such as 1.0e-3, found 'fast'"},
      {"optimizer.lr=", "found nothing"},
      {"optimizer.lr", "expected key=value"},
      {"=3", "expected key=value"},
      {".lr=3", "unknown key ''"},
      {"optimizer.lr.x=3", "'optimizer.lr' is a single value"},
      {"optimizer.betas.0.x=3", "'optimizer.betas.0' is a single value"},
      {"optimizer.betas=0.9", "expected a list"},
      {"data.train.x.weight=2", "expected an index from 0 to 1 (which adds one), found 'x'"},
      {"data.train.2.weight=2", "'data.train' has 1 items"},
      {"data.train.-1.weight=2", "expected an index"},
      {"data.train.0=x", "data.train.0: expected a map"},
      {"train=3", "train: expected a map"},
      {"train.output={a", "not valid YAML"},
      {"train.seed=-1", "from 0 to"},
      {"checkpoint.keep=2.0", "without a point"},
  };
  for (const auto& one : kCases) {
    EXPECT_THAT(With({one.flag}),
                Fails(ExitCode::kConfig, AllOf(StartsWith(std::string("--set ") + one.flag + ": "),
                                               HasSubstr(one.message))));
  }
}

TEST(OverrideTest, BrokenRulesNameTheFlagThatBrokeThem) {
  EXPECT_THAT(With({"optimizer.lr=-1"}),
              Fails(ExitCode::kConfig,
                    StartsWith("--set optimizer.lr=-1: optimizer.lr: -1 is no learning rate")));
  EXPECT_THAT(
      With({"data.train.0.weight=0"}),
      Fails(ExitCode::kConfig, StartsWith("--set data.train.0.weight=0: data.train.0.weight:")));
  EXPECT_THAT(With({"data.train=[{path: a, weight: 0}]"}),
              Fails(ExitCode::kConfig, StartsWith("--set data.train=")));
  EXPECT_THAT(With({"train.global_batch=8", "train.micro_batch=9"}),
              Fails(ExitCode::kConfig, StartsWith("--set train.micro_batch=9: ")));
}

}  // namespace
}  // namespace osler
