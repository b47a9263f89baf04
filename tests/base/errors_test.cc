#include "base/errors.h"

#include <gtest/gtest.h>

#include "base/status_macros.h"
#include "tests/testing/matchers.h"

namespace osler {
namespace {

TEST(ErrorsTest, EachClassHasItsExitCode) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), ExitCode::kDone);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(ConfigError("x"))), 2);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(DataError("x"))), 3);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(DeviceError("x"))), 4);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(CheckpointError("x"))), 5);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(MakeError(ExitCode::kBug, "x"))), 70);
  EXPECT_EQ(static_cast<int>(ExitCodeOf(StoppedError("x"))), 75);
}

TEST(ErrorsTest, AStatusNoOneClassifiedIsABug) {
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("x")), ExitCode::kBug);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("x")), ExitCode::kBug);
}

TEST(ErrorsTest, AnnotateKeepsClassCodeAndText) {
  const absl::Status status = Annotate(Annotate(DataError("bad line"), "f.jsonl:3"), "source 'a'");
  EXPECT_THAT(status,
              testing::Fails(ExitCode::kData, ::testing::StrEq("source 'a': f.jsonl:3: bad line")));
  EXPECT_EQ(status.code(), DataError("x").code());
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
  EXPECT_EQ(Annotate(absl::NotFoundError("a"), "b").code(), absl::StatusCode::kNotFound);
}

TEST(ErrorsTest, ReclassifyChangesTheClassOnly) {
  EXPECT_EQ(Reclassify(absl::NotFoundError("a"), ExitCode::kData).code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(Reclassify(absl::NotFoundError("no file"), ExitCode::kCheckpoint),
              testing::Fails(ExitCode::kCheckpoint, ::testing::StrEq("no file")));
  EXPECT_THAT(Reclassify(DataError("a"), ExitCode::kConfig),
              testing::Fails(ExitCode::kConfig, ::testing::StrEq("a")));
  EXPECT_TRUE(Reclassify(absl::OkStatus(), ExitCode::kData).ok());
}

absl::StatusOr<int> Half(int n) {
  if (n % 2 != 0) return DataError("odd");
  return n / 2;
}
absl::Status Quarter(int n, int& out) {
  OSLER_ASSIGN_OR_RETURN(const int half, Half(n));
  OSLER_ASSIGN_OR_RETURN(out, Half(half));
  OSLER_RETURN_IF_ERROR(absl::OkStatus());
  return absl::OkStatus();
}

TEST(StatusMacrosTest, ReturnTheFirstError) {
  int out = 0;
  EXPECT_THAT(Quarter(12, out), testing::IsOk());
  EXPECT_EQ(out, 3);
  EXPECT_THAT(Quarter(6, out), testing::Fails(ExitCode::kData, ::testing::StrEq("odd")));
  EXPECT_THAT(Quarter(5, out), testing::Fails(ExitCode::kData, ::testing::StrEq("odd")));
}

}  // namespace
}  // namespace osler
