#include "data/lengths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "data/lengths_format.h"
#include "tests/data/shard_records.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {

bool operator==(const RecordLength& a, const RecordLength& b) {
  return a.tokens == b.tokens && a.first_target == b.first_target && a.last_target == b.last_target;
}

namespace {

using ::osler::testing::Chat;
using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::osler::testing::TempDir;
using ::osler::testing::TokenRecords;
using ::osler::testing::Trusted;
using ::osler::testing::WriteShards;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

class LengthsTest : public ::testing::Test {
 protected:
  absl::StatusOr<Lengths> Ensure(Fs& fs, int threads = 2) {
    auto shards = ShardReader::Open(*fs_, dir_);
    if (!shards.ok()) return shards.status();
    auto encoder = RecordEncoder::Create(*fs_, "");
    if (!encoder.ok()) return encoder.status();
    return EnsureLengths(fs, **shards, **encoder, threads);
  }
  std::vector<int64_t> Tokens(const Lengths& lengths) {
    std::vector<int64_t> tokens;
    for (const RecordLength& length : lengths) tokens.push_back(length.tokens);
    return tokens;
  }

  TempDir temp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  const std::string dir_ = temp_.File("shards");
  const std::string sidecar_ = JoinPath(dir_, "lengths/tokens.bin");
};

TEST_F(LengthsTest, MeasuresTokensAndTargets) {
  std::vector<CleanRecord> records;
  const std::vector<std::vector<int32_t>> labels = {
      {-100, -100, 5, -100, 6, -100}, {7}, {7, -100}, {-100, 0}, {-100, -100}};
  for (const auto& one : labels) {
    RecordBody body;
    body.input_ids.assign(one.size(), 3);
    body.labels = one;
    records.push_back(Trusted("r", "s", std::move(body)));
  }
  ASSERT_THAT(WriteShards(*fs_, dir_, records), IsOk());
  ASSERT_OK_AND_ASSIGN(const Lengths lengths, Ensure(*fs_));
  EXPECT_THAT(lengths,
              ElementsAre(RecordLength{6, 2, 4}, RecordLength{1, 0, 0}, RecordLength{2, 0, 0},
                          RecordLength{2, 1, 1}, RecordLength{2, 0, 0}));
}

TEST_F(LengthsTest, TheSidecarIsUsedAndAnyNumberOfThreadsMakesTheSame) {
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < 1000; ++i) sizes.push_back(1 + i * 37 % 50);
  ASSERT_THAT(WriteShards(*fs_, dir_, TokenRecords(sizes)), IsOk());
  std::string first;
  for (const int threads : {1, 2, 7}) {
    ASSERT_THAT(fs_->RemoveTree(sidecar_), IsOk());
    ASSERT_OK_AND_ASSIGN(const Lengths lengths, Ensure(*fs_, threads));
    EXPECT_EQ(Tokens(lengths), sizes);
    ASSERT_OK_AND_ASSIGN(const std::string bytes, fs_->ReadFile(sidecar_));
    EXPECT_EQ(bytes.size(), 24u + 128 + 12 * 1000 + 4);
    if (first.empty()) first = bytes;
    EXPECT_EQ(bytes, first);
  }
  // A sidecar that fits is believed: the records are not measured again.
  ASSERT_OK_AND_ASSIGN(const auto shards, ShardReader::Open(*fs_, dir_));
  Lengths other(1000, RecordLength{9, 1, 8});
  const LengthsKey key{shards->digest(), first.substr(24 + 64, 64), 1000};
  ASSERT_THAT(WriteFileDurably(*fs_, sidecar_, EncodeLengths(other, key)), IsOk());
  ASSERT_OK_AND_ASSIGN(const Lengths read, Ensure(*fs_));
  EXPECT_EQ(read, other);
  EXPECT_THAT(*fs_->List(JoinPath(dir_, "lengths")), ElementsAre("tokens.bin"));
}

TEST_F(LengthsTest, AnUnusableSidecarIsMadeAnewWithAWarning) {
  ASSERT_THAT(WriteShards(*fs_, dir_, TokenRecords({4, 5, 6})), IsOk());
  ASSERT_THAT(Ensure(*fs_), IsOk());
  ASSERT_OK_AND_ASSIGN(const std::string good, fs_->ReadFile(sidecar_));
  const auto refuses = [&](const std::string& bytes) {
    ASSERT_THAT(WriteFileDurably(*fs_, sidecar_, bytes), IsOk());
    CaptureStderr();
    ASSERT_OK_AND_ASSIGN(const Lengths lengths, Ensure(*fs_));
    EXPECT_THAT(GetCapturedStderr(), HasSubstr(sidecar_));
    EXPECT_EQ(Tokens(lengths), (std::vector<int64_t>{4, 5, 6}));
    EXPECT_EQ(*fs_->ReadFile(sidecar_), good);
  };
  for (size_t at = 0; at < good.size(); at += 3) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    refuses(bad);
  }
  for (size_t size = 0; size < good.size(); size += 11) refuses(good.substr(0, size));
  refuses(good + good);
  const std::string digest = good.substr(24, 64), encoder = good.substr(88, 64);
  refuses(EncodeLengths(Lengths(3), {std::string(64, 'e'), encoder, 3}));
  refuses(EncodeLengths(Lengths(3), {digest, std::string(64, 'e'), 3}));
  refuses(EncodeLengths(Lengths(4), {digest, encoder, 4}));
}

TEST_F(LengthsTest, ADirectoryThatCannotBeWrittenIsOnlyAWarning) {
  ASSERT_THAT(WriteShards(*fs_, dir_, TokenRecords({4, 5, 6})), IsOk());
  for (const char* fault : {"write:lengths=ENOSPC", "sync:lengths=EIO", "rename:lengths=EIO"}) {
    ASSERT_OK_AND_ASSIGN(const auto faulty, MakeFaultFs(*fs_, fault));
    CaptureStderr();
    ASSERT_OK_AND_ASSIGN(const Lengths lengths, Ensure(*faulty));
    EXPECT_THAT(GetCapturedStderr(), HasSubstr("could not be kept"));
    EXPECT_EQ(Tokens(lengths), (std::vector<int64_t>{4, 5, 6}));
  }
}

TEST_F(LengthsTest, TheFirstBadRecordIsNamedWhateverTheThreads) {
  std::vector<CleanRecord> records = TokenRecords(std::vector<int64_t>(1000, 3));
  records[417] = Chat("c", "s", {{"user", "hello there"}});
  records[700] = records[417];
  ASSERT_THAT(WriteShards(*fs_, dir_, records), IsOk());
  for (const int threads : {1, 3, 8}) {
    EXPECT_THAT(Ensure(*fs_, threads),
                Fails(ExitCode::kConfig,
                      AllOf(HasSubstr(dir_), HasSubstr("record 417"), HasSubstr("tokenizer"),
                            ::testing::Not(HasSubstr("hello")))));
  }
  EXPECT_FALSE(fs_->Exists(sidecar_));
}

}  // namespace
}  // namespace osler
