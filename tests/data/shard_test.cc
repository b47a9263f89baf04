#include "data/shard.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/strings/match.h"
#include "data/manifest.h"
#include "data/shard_format.h"
#include "tests/data/shard_records.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::osler::testing::Chat;
using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::osler::testing::MixedRecords;
using ::osler::testing::SomeCertificate;
using ::osler::testing::TempDir;
using ::osler::testing::Text;
using ::osler::testing::TokenRecords;
using ::osler::testing::WriteShards;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ShardTest : public ::testing::Test {
 protected:
  void ExpectHolds(const std::string& directory, const std::vector<CleanRecord>& records) {
    ASSERT_OK_AND_ASSIGN(const auto reader, ShardReader::Open(*fs_, directory, ShardCheck::kFull));
    ASSERT_EQ(reader->size(), static_cast<int64_t>(records.size()));
    for (size_t i = 0; i < records.size(); ++i) {
      ASSERT_OK_AND_ASSIGN(const CleanRecord record, reader->Read(static_cast<int64_t>(i)));
      EXPECT_EQ(record.id(), records[i].id());
      EXPECT_EQ(record.subject(), records[i].subject());
      EXPECT_EQ(record.body(), records[i].body());
      EXPECT_EQ(reader->kind(static_cast<int64_t>(i)), records[i].body().kind());
    }
  }
  std::map<std::string, std::string> Files(const std::string& directory) {
    std::map<std::string, std::string> files;
    const std::vector<std::string> names = *fs_->List(directory);
    for (const std::string& name : names) files[name] = *fs_->ReadFile(JoinPath(directory, name));
    return files;
  }

  TempDir temp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  const std::string dir_ = temp_.File("shards");
};

TEST_F(ShardTest, GivesBackTexts) {
  std::string much;
  for (int i = 0; i < 50000; ++i) absl::StrAppend(&much, "Größe ", i, "\n");
  const std::vector<CleanRecord> records = {Chat("c", "s", {{"user", "q"}, {"assistant", "a"}}),
                                            Text("t1", "s", " \n"), Text("t2", "p", much),
                                            Text("t3", "p", std::string("a\0b", 3))};
  ASSERT_THAT(WriteShards(*fs_, dir_, records), IsOk());
  ExpectHolds(dir_, records);
  ASSERT_OK_AND_ASSIGN(const auto reader, ShardReader::Open(*fs_, dir_));
  EXPECT_LT(reader->bytes(), static_cast<int64_t>(much.size()));  // compressed
}

TEST_F(ShardTest, GivesBackTheRecordsInSourceOrder) {
  ASSERT_THAT(WriteShards(*fs_, dir_ + "/", MixedRecords(), 300), IsOk());
  ExpectHolds(dir_, MixedRecords());
  ASSERT_OK_AND_ASSIGN(const auto reader, ShardReader::Open(*fs_, dir_));
  EXPECT_GT(reader->shard_files(), 1);
  EXPECT_EQ(reader->certificate().profile, "safe_harbor");
  EXPECT_THAT(reader->certificate().trusted_sources, ElementsAre("fixed"));
  EXPECT_EQ(reader->certificate().identifiers, SomeCertificate().identifiers);
  EXPECT_EQ(reader->digest().size(), 64u);
  EXPECT_THAT(*fs_->List(temp_.path()),
              ElementsAre("shards"));  // nothing temporary is left beside it
}

TEST_F(ShardTest, HoldsNoRecordsAtAll) {
  ASSERT_THAT(WriteShards(*fs_, dir_, {}), IsOk());
  ExpectHolds(dir_, {});
}

TEST_F(ShardTest, TextThatCompressesBeyondTheBoundIsStoredRaw) {
  const std::vector<CleanRecord> records = {Chat("a", "s", {{"user", std::string(8 << 20, 'a')}}),
                                            Chat("b", "s", {{"user", std::string(100'000, 'b')}})};
  ASSERT_THAT(WriteShards(*fs_, dir_, records), IsOk());
  ExpectHolds(dir_, records);
  EXPECT_GT(*fs_->Size(JoinPath(dir_, "shard-00000.osd")), 8 << 20);
  EXPECT_LT(*fs_->Size(JoinPath(dir_, "shard-00000.osd")), (8 << 20) + 20'000);
}

TEST_F(ShardTest, ASubjectIsAlwaysInOneFile) {
  ASSERT_THAT(WriteShards(*fs_, dir_, MixedRecords(), 500), IsOk());
  std::map<std::string, std::set<std::string>> files_of_subject;
  std::set<std::string> shards;
  const auto all = Files(dir_);
  for (const auto& [name, bytes] : all) {
    if (!absl::StartsWith(name, "shard-")) continue;
    shards.insert(name);
    ASSERT_OK_AND_ASSIGN(const ShardView view, ShardView::Parse(bytes, name));
    for (int64_t i = 0; i < view.records(); ++i) {
      ASSERT_OK_AND_ASSIGN(const RecordContents record, view.Read(i));
      files_of_subject[record.subject].insert(name);
      EXPECT_EQ(view.entry(i).subject_hash, NameHash(record.subject));
      EXPECT_EQ(view.entry(i).key_hash, NameHash(record.id));
    }
  }
  EXPECT_GT(shards.size(), 1u);
  EXPECT_EQ(files_of_subject.size(), 5u);
  for (const auto& [subject, files] : files_of_subject) EXPECT_EQ(files.size(), 1u) << subject;
}

// All subjects appear early and come back until the end: files still end near their size.
TEST_F(ShardTest, FilesKeepToTheirSizeWhenSubjectsInterleave) {
  std::vector<CleanRecord> records;
  for (int i = 0; i < 400; ++i) {
    records.push_back(testing::Tokens(absl::StrCat("r", i), absl::StrCat("s", i % 40),
                                      std::vector<int32_t>(25, i)));
  }
  ASSERT_THAT(WriteShards(*fs_, dir_, records, 8000), IsOk());
  ExpectHolds(dir_, records);
  ASSERT_OK_AND_ASSIGN(const auto reader, ShardReader::Open(*fs_, dir_));
  EXPECT_EQ(reader->shard_files(), 40 * 10 * 200 / 8000);
  EXPECT_FALSE(fs_->Exists(JoinPath(dir_, "records.spool")));
}

TEST_F(ShardTest, SameRecordsGiveSameBytes) {
  const std::string other = temp_.File("other");
  ASSERT_THAT(WriteShards(*fs_, dir_, MixedRecords(), 500), IsOk());
  ASSERT_THAT(WriteShards(*fs_, other, MixedRecords(), 500), IsOk());
  EXPECT_EQ(Files(dir_), Files(other));
}

TEST_F(ShardTest, TheDigestSpeaksOfTheRecordsAlone) {
  const auto digest = [&](const std::string& name, const std::vector<CleanRecord>& records,
                          int64_t bytes, const Certificate& certificate) {
    EXPECT_THAT(WriteShards(*fs_, temp_.File(name), records, bytes, certificate), IsOk());
    return (*ShardReader::Open(*fs_, temp_.File(name)))->digest();
  };
  Certificate other = SomeCertificate();
  other.trusted_sources.clear();
  const std::string first = digest("a", MixedRecords(), 500, SomeCertificate());
  EXPECT_EQ(digest("b", MixedRecords(), 1 << 20, SomeCertificate()), first);
  EXPECT_EQ(digest("c", MixedRecords(), 500, other), first);
  EXPECT_NE((*ShardReader::Open(*fs_, temp_.File("c")))->certificate().build_id,
            (*ShardReader::Open(*fs_, temp_.File("a")))->certificate().build_id);
  std::vector<CleanRecord> swapped = MixedRecords();
  std::swap(swapped[3], swapped[4]);
  EXPECT_NE(digest("d", swapped, 2000, SomeCertificate()), first);
}

TEST_F(ShardTest, AFailedBuildLeavesTheEarlierOneAndNoTraces) {
  ASSERT_THAT(WriteShards(*fs_, dir_, TokenRecords({4, 5})), IsOk());
  for (const char* fault :
       {"write:records.spool=ENOSPC", "write:shard-00000=ENOSPC", "write:index=ENOSPC",
        "write:certificate=ENOSPC", "write:report=ENOSPC", "write:manifest=ENOSPC",
        "sync:shard-00000=EIO", "sync:manifest=EIO", "rename:shards=EIO"}) {
    SCOPED_TRACE(fault);
    ASSERT_OK_AND_ASSIGN(const auto faulty, MakeFaultFs(*fs_, fault));
    EXPECT_THAT(WriteShards(*faulty, dir_, MixedRecords()),
                Fails(ExitCode::kData, HasSubstr("shards")));
    ExpectHolds(dir_, TokenRecords({4, 5}));
    EXPECT_THAT(*fs_->List(temp_.path()), ElementsAre("shards"));
  }
}

TEST_F(ShardTest, AWriterThatFailedNeverCommits) {
  ASSERT_OK_AND_ASSIGN(const auto faulty, MakeFaultFs(*fs_, "write:records.spool@1=ENOSPC"));
  ASSERT_OK_AND_ASSIGN(const auto writer,
                       ShardWriter::Create(*faulty, {dir_, 1 << 30, SomeCertificate(), ""}));
  std::vector<int32_t> ids(9 << 20, 1);
  EXPECT_THAT(writer->Append(testing::Tokens("a", "s", ids)),
              Fails(ExitCode::kData, AllOf(HasSubstr("record 0"), HasSubstr("No space left"))));
  EXPECT_THAT(writer->Append(testing::Tokens("b", "s", {1, 2})),
              Fails(ExitCode::kData, HasSubstr("No space")));
  EXPECT_THAT(writer->Commit(), Fails(ExitCode::kData, HasSubstr("No space left")));
  EXPECT_FALSE(fs_->Exists(dir_));
}

TEST_F(ShardTest, ADirectoryOfOtherThingsIsNotReplaced) {
  ASSERT_THAT(fs_->MakeDirectories(dir_), IsOk());
  ASSERT_THAT(WriteFileDurably(*fs_, JoinPath(dir_, "thesis.txt"), "years of work"), IsOk());
  EXPECT_THAT(WriteShards(*fs_, dir_, MixedRecords()),
              Fails(ExitCode::kConfig, AllOf(HasSubstr(dir_), HasSubstr("thesis.txt"))));
  EXPECT_EQ(*fs_->ReadFile(JoinPath(dir_, "thesis.txt")), "years of work");
  EXPECT_THAT(*fs_->List(temp_.path()), ElementsAre("shards"));
}

TEST_F(ShardTest, EveryMissingFileIsNamed) {
  for (const char* name : {"manifest.json", "certificate.json", "index.bin", "report.json",
                           "shard-00000.osd", "shard-00001.osd"}) {
    ASSERT_THAT(WriteShards(*fs_, dir_, MixedRecords(), 300), IsOk());
    ASSERT_THAT(fs_->Remove(JoinPath(dir_, name)), IsOk());
    EXPECT_THAT(ShardReader::Open(*fs_, dir_),
                Fails(ExitCode::kData, AllOf(HasSubstr(JoinPath(dir_, name)), HasSubstr("missing"),
                                             HasSubstr("osler data build"))));
  }
  EXPECT_THAT(ShardReader::Open(*fs_, temp_.File("nowhere")),
              Fails(ExitCode::kData, HasSubstr("nowhere")));
}

TEST_F(ShardTest, FilesOfAnotherBuildAreRefusedByName) {
  const std::string other = temp_.File("other");
  Certificate certificate = SomeCertificate();
  certificate.identifiers["date"] = 99;
  for (const bool same_records : {true, false}) {
    for (const char* name : {"certificate.json", "index.bin", "manifest.json"}) {
      ASSERT_THAT(WriteShards(*fs_, dir_, TokenRecords({4, 5, 6})), IsOk());
      ASSERT_THAT(WriteShards(*fs_, other,
                              TokenRecords(same_records ? std::vector<int64_t>{4, 5, 6}
                                                        : std::vector<int64_t>{4, 5, 7}),
                              64 << 20, certificate),
                  IsOk());
      ASSERT_THAT(
          WriteFileDurably(*fs_, JoinPath(dir_, name), *fs_->ReadFile(JoinPath(other, name))),
          IsOk());
      // A foreign manifest is the standard by which the directory's own certificate is the foreign
      // one.
      const std::string blamed = std::string(name) == "manifest.json" ? "certificate.json" : name;
      EXPECT_THAT(ShardReader::Open(*fs_, dir_),
                  Fails(ExitCode::kData,
                        AllOf(HasSubstr(JoinPath(dir_, blamed)), HasSubstr("another build"))));
    }
  }
}

TEST_F(ShardTest, AnEditedCertificateIsRefusedByName) {
  ASSERT_THAT(WriteShards(*fs_, dir_, MixedRecords()), IsOk());
  const std::string path = JoinPath(dir_, "certificate.json");
  ASSERT_OK_AND_ASSIGN(std::string text, fs_->ReadFile(path));
  ASSERT_OK_AND_ASSIGN(Certificate edited, ParseCertificate(text, path));
  edited.trusted_sources.clear();
  ASSERT_THAT(WriteFileDurably(*fs_, path, WriteCertificate(edited)), IsOk());
  EXPECT_THAT(ShardReader::Open(*fs_, dir_), Fails(ExitCode::kData, HasSubstr(path)));
}

}  // namespace
}  // namespace osler
