// Framing and names; test_tensorboard.py reads whole runs with the tensorboard package.
#include "trainer/tensorboard/event_writer.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;

// Made with google_crc32c and the mask of TensorFlow's record format.
TEST(TfRecordTest, LengthAndMaskedChecksums) {
  EXPECT_EQ(absl::BytesToHexString(TfRecord("123456789")),
            "090000000000000037f97139313233343536373839e5b08ac7");
}

TEST(EventWriterTest, EveryStartHasAFileThatSortsLast) {
  const testing::TempDir dir;
  const auto fs = MakePosixFs();
  const std::string path = dir.File("log/tensorboard");
  ASSERT_THAT(fs->MakeDirectories(path), IsOk());
  for (const char* name :
       {"events.out.tfevents.4000000000.host.1", "events.out.tfevents.x", "note"}) {
    ASSERT_THAT(WriteFileDurably(*fs, JoinPath(path, name), ""), IsOk());
  }
  for (int64_t step = 1; step <= 3; ++step) {
    ASSERT_OK_AND_ASSIGN(const auto writer, EventWriter::Open(*fs, path, step));
    writer->Scalars(step, {{"loss", 1.5}});
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> names, fs->List(path));
  ASSERT_EQ(names.size(), 6u);
  for (int i = 1; i <= 3; ++i) {
    const std::string start = "events.out.tfevents.400000000" + std::to_string(i) + ".";
    EXPECT_EQ(names[static_cast<size_t>(i)].substr(0, start.size()), start);
  }
}

}  // namespace
}  // namespace osler
