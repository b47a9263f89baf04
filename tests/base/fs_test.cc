#include "base/fs.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;

class FsTest : public ::testing::Test {
 protected:
  absl::Status Write(const std::string& path, std::string_view content,
                     OpenMode mode = OpenMode::kTruncate) {
    auto file = fs_->Open(path, mode);
    if (!file.ok()) return file.status();
    if (auto status = (*file)->Append(content); !status.ok()) return status;
    if (auto status = (*file)->Sync(); !status.ok()) return status;
    return (*file)->Close();
  }

  const testing::TempDir dir_;
  const std::unique_ptr<Fs> fs_ = MakePosixFs();
};

TEST_F(FsTest, WritesAppendsReadsAndMaps) {
  const std::string path = dir_.File("a");
  const std::string big(300000, 'x');  // more than one read
  ASSERT_THAT(Write(path, std::string_view("o\0ne", 4)), IsOk());
  ASSERT_THAT(Write(path, big, OpenMode::kAppend), IsOk());
  ASSERT_OK_AND_ASSIGN(const std::string text, fs_->ReadFile(path));
  EXPECT_EQ(text, std::string("o\0ne", 4) + big);
  ASSERT_OK_AND_ASSIGN(const auto map, fs_->Map(path));
  EXPECT_EQ(map->data(), text);
  ASSERT_OK_AND_ASSIGN(const int64_t size, fs_->Size(path));
  EXPECT_EQ(size, 300004);
  ASSERT_THAT(Write(path, "new"), IsOk());
  EXPECT_EQ(*fs_->ReadFile(path), "new");
}

TEST_F(FsTest, ABulkFileHoldsWhatWasAppended) {
  constexpr size_t kBuffer = size_t{8} << 20;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4096}, kBuffer - 1, kBuffer, kBuffer + 1,
                            2 * kBuffer + 4096 + 7}) {
    std::string content(size, '\0');
    for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 31 + i / 4096);
    const std::string path = dir_.File("bulk");
    ASSERT_OK_AND_ASSIGN(const auto file, fs_->Open(path, OpenMode::kBulk));
    for (size_t at = 0; at < size;) {
      const size_t part = std::min(size - at, size_t{3'000'017});
      ASSERT_THAT(file->Append(std::string_view(content).substr(at, part)), IsOk());
      at += part;
    }
    ASSERT_THAT(file->Sync(), IsOk());
    ASSERT_OK_AND_ASSIGN(const std::string synced, fs_->ReadFile(path));
    EXPECT_TRUE(synced == content) << size << " bytes";
    ASSERT_THAT(file->Append("after the sync"), IsOk());
    ASSERT_THAT(file->Close(), IsOk());
    ASSERT_OK_AND_ASSIGN(const std::string closed, fs_->ReadFile(path));
    EXPECT_TRUE(closed == content + "after the sync") << size << " bytes";
  }
}

TEST_F(FsTest, AnEmptyFileMapsToNothing) {
  ASSERT_THAT(Write(dir_.File("empty"), ""), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto map, fs_->Map(dir_.File("empty")));
  EXPECT_TRUE(map->data().empty());
}

TEST_F(FsTest, AMappingOutlivesItsName) {
  const std::string path = dir_.File("a");
  ASSERT_THAT(Write(path, "content"), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto map, fs_->Map(path));
  ASSERT_THAT(fs_->Remove(path), IsOk());
  EXPECT_EQ(map->data(), "content");
}

TEST_F(FsTest, MissingPathsAreNotFoundByName) {
  const std::string path = dir_.File("absent/file");
  for (const absl::Status& status :
       {fs_->ReadFile(path).status(), fs_->Map(path).status(),
        fs_->Open(path, OpenMode::kTruncate).status(), fs_->Size(path).status(), fs_->Remove(path),
        fs_->Truncate(path, 0), fs_->SyncDirectory(path), fs_->List(path).status(),
        fs_->FreeBytes(path).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    EXPECT_THAT(std::string(status.message()), HasSubstr("No such file"));
  }
  EXPECT_EQ(fs_->Rename(path, dir_.File("b")).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(fs_->RemoveTree(path), IsOk());
  EXPECT_FALSE(fs_->Exists(path));
  EXPECT_FALSE(fs_->IsDirectory(path));
}

TEST_F(FsTest, DirectoriesAreMadeListedAndRemoved) {
  ASSERT_THAT(fs_->MakeDirectories(dir_.File("x/y/z")), IsOk());
  ASSERT_THAT(fs_->MakeDirectories(dir_.File("x/y/z")), IsOk());
  ASSERT_THAT(Write(dir_.File("x/b"), "1"), IsOk());
  ASSERT_THAT(Write(dir_.File("x/a"), "1"), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto names, fs_->List(dir_.File("x")));
  EXPECT_THAT(names, ElementsAre("a", "b", "y"));
  EXPECT_TRUE(fs_->IsDirectory(dir_.File("x/y")));
  EXPECT_FALSE(fs_->IsDirectory(dir_.File("x/a")));
  EXPECT_FALSE(fs_->MakeDirectories(dir_.File("x/a/below")).ok());  // a file stands in the way
  EXPECT_FALSE(fs_->ReadFile(dir_.File("x/y")).ok());
  EXPECT_FALSE(fs_->Map(dir_.File("x/y")).ok());
  EXPECT_THAT(fs_->SyncDirectory(dir_.File("x")), IsOk());
  ASSERT_THAT(fs_->RemoveTree(dir_.File("x")), IsOk());
  EXPECT_FALSE(fs_->Exists(dir_.File("x")));
}

TEST_F(FsTest, RenameReplacesAndTruncateCuts) {
  ASSERT_THAT(Write(dir_.File("a"), "12345"), IsOk());
  ASSERT_THAT(Write(dir_.File("b"), "old"), IsOk());
  ASSERT_THAT(fs_->Rename(dir_.File("a"), dir_.File("b")), IsOk());
  ASSERT_THAT(fs_->Truncate(dir_.File("b"), 3), IsOk());
  EXPECT_EQ(*fs_->ReadFile(dir_.File("b")), "123");
  EXPECT_FALSE(fs_->Exists(dir_.File("a")));
}

TEST_F(FsTest, FreeBytesIsAFigureOfThisDisk) {
  ASSERT_OK_AND_ASSIGN(const int64_t bytes, fs_->FreeBytes(dir_.path()));
  EXPECT_GT(bytes, 0);
}

TEST_F(FsTest, WritingToAFullDeviceIsResourceExhausted) {
  auto file = fs_->Open("/dev/full", OpenMode::kAppend);
  if (!file.ok()) GTEST_SKIP() << "no /dev/full here";
  const absl::Status status = (*file)->Append("x");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/full: No space left on device"));
}

TEST_F(FsTest, WriteFileDurablyReplacesTheWholeFile) {
  const std::string path = dir_.File("f");
  ASSERT_THAT(WriteFileDurably(*fs_, path, "first version"), IsOk());
  ASSERT_THAT(WriteFileDurably(*fs_, path, "second"), IsOk());
  EXPECT_EQ(*fs_->ReadFile(path), "second");
  EXPECT_THAT(*fs_->List(dir_.path()), ElementsAre("f"));
}

TEST_F(FsTest, PathsJoinAndSplit) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b/c"), "a/b/c");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(ParentDirectory("a/b"), "a");
  EXPECT_EQ(ParentDirectory("b"), ".");
  EXPECT_EQ(ParentDirectory("/b"), "/");
}

class FaultFsTest : public FsTest {
 protected:
  std::unique_ptr<Fs> Faulty(std::string_view rules) {
    auto made = MakeFaultFs(*fs_, rules);
    EXPECT_THAT(made, IsOk());
    return *std::move(made);
  }
};

TEST_F(FaultFsTest, AFailedDurableWriteLeavesTheOldFileAlone) {
  const std::string path = dir_.File("keep");
  ASSERT_THAT(WriteFileDurably(*fs_, path, "old"), IsOk());
  for (const char* rule : {"write:keep=ENOSPC", "sync:keep.tmp=EIO", "rename:keep=EIO"}) {
    const auto faulty = Faulty(rule);
    const absl::Status status = WriteFileDurably(*faulty, path, "new");
    EXPECT_FALSE(status.ok()) << rule;
    EXPECT_THAT(std::string(status.message()), HasSubstr("keep"));
    EXPECT_EQ(*fs_->ReadFile(path), "old") << rule;
    EXPECT_THAT(*fs_->List(dir_.path()), ElementsAre("keep")) << rule;
  }
}

TEST_F(FaultFsTest, ErrorsAreThoseOfTheRule) {
  EXPECT_EQ(WriteFileDurably(*Faulty("write:=ENOSPC"), dir_.File("a"), "x").code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(WriteFileDurably(*Faulty("write:=EIO"), dir_.File("a"), "x").message()),
              HasSubstr("Input/output error"));
}

TEST_F(FaultFsTest, RulesSelectByPathAndCountCalls) {
  ASSERT_THAT(Write(dir_.File("a"), "x"), IsOk());
  ASSERT_THAT(Write(dir_.File("b"), "x"), IsOk());
  const auto faulty = Faulty("read:/a@2=EIO,read:/b=EIO");
  EXPECT_THAT(faulty->ReadFile(dir_.File("a")), IsOk());
  EXPECT_FALSE(faulty->Map(dir_.File("a")).ok());  // the second matching read
  EXPECT_THAT(faulty->ReadFile(dir_.File("a")), IsOk());
  EXPECT_FALSE(faulty->ReadFile(dir_.File("b")).ok());
  EXPECT_FALSE(faulty->ReadFile(dir_.File("b")).ok());
}

TEST_F(FaultFsTest, EverythingElsePassesThrough) {
  const auto faulty = Faulty("write:never=EIO");
  ASSERT_THAT(faulty->MakeDirectories(dir_.File("d")), IsOk());
  ASSERT_THAT(WriteFileDurably(*faulty, dir_.File("d/a"), "12345"), IsOk());
  ASSERT_THAT(faulty->Truncate(dir_.File("d/a"), 2), IsOk());
  EXPECT_EQ(*faulty->Size(dir_.File("d/a")), 2);
  EXPECT_EQ((*faulty->Map(dir_.File("d/a")))->data(), "12");
  ASSERT_THAT(faulty->Rename(dir_.File("d/a"), dir_.File("d/b")), IsOk());
  EXPECT_THAT(*faulty->List(dir_.File("d")), ElementsAre("b"));
  EXPECT_TRUE(faulty->Exists(dir_.File("d/b")));
  EXPECT_TRUE(faulty->IsDirectory(dir_.File("d")));
  EXPECT_GT(*faulty->FreeBytes(dir_.path()), 0);
  ASSERT_THAT(faulty->Remove(dir_.File("d/b")), IsOk());
  ASSERT_THAT(faulty->RemoveTree(dir_.File("d")), IsOk());
}

TEST_F(FaultFsTest, MisspeltRulesAreRefused) {
  for (const char* rule :
       {"wrte:a=EIO", "write:a=EPERM", "write:a", "write:a@0=EIO", "write:a@x=EIO", "x"}) {
    EXPECT_THAT(MakeFaultFs(*fs_, rule), Fails(ExitCode::kConfig, HasSubstr(rule))) << rule;
  }
  EXPECT_THAT(MakeFaultFs(*fs_, ""), IsOk());
}

}  // namespace
}  // namespace osler
