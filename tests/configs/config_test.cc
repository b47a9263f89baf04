// What a configuration file becomes: the documented examples field by field, and the defaults.
#include "configs/config.h"

#include <gtest/gtest.h>

#include "tests/configs/examples.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::kBuildExample;
using testing::kBuildMinimum;
using testing::kTrainExample;
using testing::kTrainMinimum;

TEST(TrainConfigTest, ReadsEveryKeyOfTheExample) {
  ASSERT_OK_AND_ASSIGN(const config::Train c, ParseTrainConfig(kTrainExample, "train.yaml", {}));
  EXPECT_EQ(c.model().path(), "DIR");
  ASSERT_EQ(c.data().train_size(), 1);
  EXPECT_EQ(c.data().train(0).path(), "SHARDS/train");
  EXPECT_EQ(c.data().train(0).weight(), 1.0);
  ASSERT_EQ(c.data().validation_size(), 1);
  EXPECT_EQ(c.data().validation(0).path(), "SHARDS/validation");
  EXPECT_EQ(c.data().sequence_length(), 512);
  EXPECT_TRUE(c.data().packing());
  EXPECT_TRUE(c.data().shuffle());
  EXPECT_EQ(c.mesh().data(), 2);
  EXPECT_EQ(c.train().steps(), 20);
  EXPECT_EQ(c.train().global_batch(), 8);
  EXPECT_EQ(c.train().micro_batch(), 1);
  EXPECT_EQ(c.train().precision(), config::FP32);
  EXPECT_EQ(c.train().seed(), 7u);
  EXPECT_EQ(c.train().recompute(), config::NONE);
  EXPECT_EQ(c.train().output(), "RUN_DIR");
  EXPECT_EQ(c.optimizer().type(), config::ADAMW);
  EXPECT_EQ(c.optimizer().lr(), 1e-3);
  EXPECT_THAT(c.optimizer().betas(), ElementsAre(0.9, 0.95));
  EXPECT_EQ(c.optimizer().eps(), 1e-8);
  EXPECT_EQ(c.optimizer().weight_decay(), 0.1);
  EXPECT_EQ(c.optimizer().clip_norm(), 1.0);
  EXPECT_EQ(c.schedule().type(), config::COSINE);
  EXPECT_EQ(c.schedule().warmup_steps(), 2);
  EXPECT_EQ(c.schedule().min_lr_ratio(), 0.1);
  EXPECT_EQ(c.checkpoint().every_steps(), 5);
  EXPECT_EQ(c.checkpoint().keep(), 3);
}

TEST(TrainConfigTest, FillsInDefaults) {
  ASSERT_OK_AND_ASSIGN(const config::Train c, ParseTrainConfig(kTrainMinimum, "train.yaml", {}));
  EXPECT_TRUE(c.data().train(0).has_weight());
  EXPECT_EQ(c.data().train(0).weight(), 1.0);
  EXPECT_TRUE(c.data().has_sequence_length());
  EXPECT_TRUE(c.data().packing());
  EXPECT_TRUE(c.data().shuffle());
  EXPECT_EQ(c.data().long_records(), config::TRUNCATE);
  EXPECT_EQ(c.data().target(), config::ASSISTANT);
  EXPECT_TRUE(c.data().template_().empty());
  EXPECT_FALSE(c.mesh().has_data());  // the number of ranks, which no file knows
  EXPECT_TRUE(c.mesh().has_tensor());
  EXPECT_EQ(c.train().global_batch(), 1);
  EXPECT_EQ(c.optimizer().lr(), 1e-4);
  EXPECT_THAT(c.optimizer().betas(), ElementsAre(0.9, 0.999));
  EXPECT_EQ(c.schedule().type(), config::COSINE);
  EXPECT_EQ(c.schedule().warmup_steps(), 0);
  EXPECT_EQ(c.checkpoint().every_steps(), 0);
  EXPECT_EQ(c.checkpoint().keep(), 3);
}

TEST(BuildConfigTest, ReadsEveryKeyOfTheExample) {
  ASSERT_OK_AND_ASSIGN(const config::Build c, ParseBuildConfig(kBuildExample, "build.yaml", {}));
  EXPECT_EQ(c.deid().profile(), config::SAFE_HARBOR);
  ASSERT_EQ(c.sources_size(), 2);
  EXPECT_EQ(c.sources(0).name(), "visits");
  EXPECT_EQ(c.sources(0).format(), config::CHAT_JSONL);
  EXPECT_EQ(c.sources(0).path(), "visits.jsonl");
  EXPECT_FALSE(c.sources(0).trusted());
  EXPECT_EQ(c.sources(1).name(), "fixed");
  EXPECT_EQ(c.sources(1).format(), config::TOKENS_JSONL);
  EXPECT_TRUE(c.sources(1).trusted());
  EXPECT_EQ(c.split().validation(), 0.1);
  EXPECT_EQ(c.split().by(), config::SUBJECT);
  EXPECT_EQ(c.split().seed(), 1u);
  EXPECT_EQ(c.output().path(), "SHARDS");
  EXPECT_EQ(c.output().shard_mb(), 64);
}

TEST(BuildConfigTest, FillsInDefaultsAndLeavesAnAbsentSplitAbsent) {
  ASSERT_OK_AND_ASSIGN(const config::Build c, ParseBuildConfig(kBuildMinimum, "build.yaml", {}));
  EXPECT_TRUE(c.deid().has_profile());
  EXPECT_EQ(c.sources(0).on_error(), config::STOP);
  EXPECT_EQ(c.sources(0).no_target(), config::NoTarget::STOP);
  EXPECT_TRUE(c.sources(0).has_trusted());
  EXPECT_FALSE(c.has_split());
  EXPECT_EQ(c.output().shard_mb(), 64);
}

TEST(LoadConfigTest, ReadsTheFileAndNamesItInErrors) {
  const testing::TempDir dir;
  const std::unique_ptr<Fs> fs = MakePosixFs();
  const std::string path = dir.File("train.yaml");
  ASSERT_THAT(WriteFileDurably(*fs, path, kTrainMinimum), testing::IsOk());
  ASSERT_OK_AND_ASSIGN(const config::Train c, LoadTrainConfig(*fs, path, {"train.steps=9"}));
  EXPECT_EQ(c.train().steps(), 9);
  EXPECT_THAT(LoadBuildConfig(*fs, path, {}), Fails(ExitCode::kConfig, HasSubstr(path + ":1: ")));
  const std::string absent = dir.File("absent.yaml");
  EXPECT_THAT(LoadTrainConfig(*fs, absent, {}),
              Fails(ExitCode::kConfig, AllOf(HasSubstr(absent), HasSubstr("No such file"))));
}

}  // namespace
}  // namespace osler
