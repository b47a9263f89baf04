// Every byte of every file of a small shard directory is flipped, and every file is cut and grown:
// each time the directory is refused, or a record of it is, and the message names the file.
#include <gtest/gtest.h>

#include "base/digest.h"
#include "data/shard.h"
#include "data/shard_format.h"
#include "tests/data/shard_records.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::osler::testing::MixedRecords;
using ::osler::testing::TempDir;
using ::osler::testing::WriteShards;
using ::testing::HasSubstr;

class ShardCorruptionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<CleanRecord> records = MixedRecords();
    records.erase(records.begin() + 6, records.end());
    ASSERT_THAT(WriteShards(*fs_, dir_, records, 600), IsOk());
    names_ = *fs_->List(dir_);
    ASSERT_EQ(names_.size(), 4u + 2u);
  }
  // Opens and reads everything; the first error.
  absl::Status Use(ShardCheck check) {
    auto reader = ShardReader::Open(*fs_, dir_, check);
    if (!reader.ok()) return reader.status();
    for (int64_t i = 0; i < (*reader)->size(); ++i) {
      if (auto record = (*reader)->Read(i); !record.ok()) return record.status();
    }
    return absl::OkStatus();
  }
  void Put(const std::string& path, std::string_view bytes) {
    ASSERT_OK_AND_ASSIGN(const auto file, fs_->Open(path, OpenMode::kTruncate));
    ASSERT_THAT(file->Append(bytes), IsOk());
    ASSERT_THAT(file->Close(), IsOk());
  }

  TempDir temp_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
  const std::string dir_ = temp_.File("shards");
  std::vector<std::string> names_;
};

TEST_F(ShardCorruptionTest, AnyFlippedByteIsRefusedByName) {
  for (const std::string& name : names_) {
    const std::string path = JoinPath(dir_, name);
    ASSERT_OK_AND_ASSIGN(const std::string good, fs_->ReadFile(path));
    for (size_t at = 0; at < good.size(); ++at) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
      Put(path, bad);
      ASSERT_THAT(Use(ShardCheck::kQuick), Fails(ExitCode::kData, HasSubstr(path)))
          << "byte " << at;
      if (at % 37 == 0) {
        ASSERT_THAT(ShardReader::Open(*fs_, dir_, ShardCheck::kFull),
                    Fails(ExitCode::kData, HasSubstr(path)))
            << "byte " << at;
      }
    }
    Put(path, good);
  }
  EXPECT_THAT(Use(ShardCheck::kFull), IsOk());
}

TEST_F(ShardCorruptionTest, AFileOfAnotherSizeIsRefusedByName) {
  for (const std::string& name : names_) {
    const std::string path = JoinPath(dir_, name);
    ASSERT_OK_AND_ASSIGN(const std::string good, fs_->ReadFile(path));
    for (size_t size = 0; size < good.size(); size += 1 + size / 16) {
      Put(path, good.substr(0, size));
      ASSERT_THAT(ShardReader::Open(*fs_, dir_), Fails(ExitCode::kData, HasSubstr(path)))
          << size << " bytes";
    }
    for (const std::string& end :
         {std::string(1, '\0'), std::string(" "), good.substr(0, 64), good}) {
      Put(path, good + end);
      ASSERT_THAT(ShardReader::Open(*fs_, dir_), Fails(ExitCode::kData, HasSubstr(path)))
          << "longer";
    }
    Put(path, good);
  }
}

// A part's bound on growth holds whatever its header says: the CRCs are right here, only the claim
// is not.
TEST_F(ShardCorruptionTest, APartThatClaimsToGrowWithoutBoundIsRefused) {
  const std::string zstd_like(40, 'z');
  StoredPart part{PartKind::kMessages, PartType::kJson,  PartCodec::kZstd, Crc32c(zstd_like), 0,
                  zstd_like.size(),    uint64_t{1} << 60};
  EXPECT_THAT(ReadPart(zstd_like, part, 0, zstd_like.size()),
              Fails(ExitCode::kData, HasSubstr("bound")));
  part.raw = 1 << 20;
  EXPECT_THAT(ReadPart(zstd_like, part, 0, zstd_like.size()),
              Fails(ExitCode::kData, HasSubstr("decompress")));
  part.offset = ~uint64_t{0} - 8;
  EXPECT_THAT(ReadPart(zstd_like, part, 0, zstd_like.size()),
              Fails(ExitCode::kData, HasSubstr("outside")));
}

TEST_F(ShardCorruptionTest, MessagesHoldNoRecordText) {
  const std::string path = JoinPath(dir_, names_.back());
  ASSERT_OK_AND_ASSIGN(std::string bytes, fs_->ReadFile(path));
  bytes[5000 < bytes.size() ? 4100 : 4097] ^= 1;
  Put(path, bytes);
  const absl::Status status = Use(ShardCheck::kQuick);
  EXPECT_THAT(status, Fails(ExitCode::kData, HasSubstr("CRC-32C")));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("afebrile")));
}

}  // namespace
}  // namespace osler
