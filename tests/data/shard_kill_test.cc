// A build that is killed while it replaces an earlier one. Failpoints are read from the environment
// once a process, so every build here runs in a forked child and this process makes none.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "data/shard.h"
#include "tests/data/shard_records.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;
using ::osler::testing::MixedRecords;
using ::osler::testing::SomeCertificate;
using ::osler::testing::TempDir;
using ::osler::testing::TokenRecords;
using ::osler::testing::WriteShards;

struct Place {
  const char* failpoint;
  bool committed;    // the new directory already has its final name
  size_t leftovers;  // names beside the directory, which itself may be missing
};

class ShardKillTest : public ::testing::TestWithParam<Place> {
 protected:
  TempDir temp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  const std::string dir_ = temp_.File("shards");
};

TEST_P(ShardKillTest, LosesNeitherTheEarlierNorTheNewDirectory) {
  const Place place = GetParam();
  EXPECT_EXIT(std::exit(WriteShards(*fs_, dir_, TokenRecords({4, 5})).ok() ? 0 : 1),
              ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      {
        setenv("OSLER_FAILPOINTS", absl::StrCat(place.failpoint, "=kill").c_str(), 1);
        WriteShards(*fs_, dir_, MixedRecords()).IgnoreError();
      },
      ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_EQ(fs_->List(temp_.path())->size(), place.leftovers + (fs_->Exists(dir_) ? 1 : 0));

  // The next build, before it has written anything, has put things in order.
  ASSERT_OK_AND_ASSIGN(auto next,
                       ShardWriter::Create(*fs_, {dir_, 1 << 20, SomeCertificate(), ""}));
  next.reset();
  EXPECT_EQ(fs_->List(temp_.path())->size(), 1u);
  ASSERT_OK_AND_ASSIGN(const auto reader, ShardReader::Open(*fs_, dir_, ShardCheck::kFull));
  EXPECT_EQ(reader->size(), static_cast<int64_t>(place.committed ? MixedRecords().size() : 2));
}

INSTANTIATE_TEST_SUITE_P(Places, ShardKillTest,
                         ::testing::Values(Place{"build manifest", false, 1},
                                           Place{"build rename", false, 1},
                                           Place{"build aside", false, 2},
                                           Place{"build renamed", true, 1}),
                         [](const auto& info) {
                           std::string name = info.param.failpoint;
                           name[5] = '_';
                           return name;
                         });

}  // namespace
}  // namespace osler
