#include "base/file_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

TEST(FileLockTest, OneHoldsIt) {
  testing::TempDir directory;
  const std::string path = directory.File("lock");
  auto first = FileLock::Take(path, milliseconds(0));
  ASSERT_THAT(first.status(), testing::IsOk());
  const auto second = FileLock::Take(path, milliseconds(60));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(getpid())));
  std::optional<FileLock> moved(*std::move(first));
  EXPECT_FALSE(FileLock::Take(path, milliseconds(0)).ok());
  moved.reset();
  EXPECT_THAT(FileLock::Take(path, milliseconds(0)).status(), testing::IsOk());
}

TEST(FileLockTest, ADeadProcessHoldsNothing) {
  testing::TempDir directory;
  const std::string path = directory.File("lock");
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = FileLock::Take(path, milliseconds(0));
    kill(getpid(), SIGKILL);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_THAT(FileLock::Take(path, milliseconds(0)).status(), testing::IsOk());
}

TEST(FileLockTest, WhatCannotBeOpened) {
  testing::TempDir directory;
  EXPECT_THAT(
      std::string(FileLock::Take(directory.File("no/lock"), milliseconds(0)).status().message()),
      HasSubstr("cannot open"));
}

}  // namespace
}  // namespace osler
