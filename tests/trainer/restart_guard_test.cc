#include "trainer/restart_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/errors.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::osler::testing::Fails;
using ::osler::testing::IsOk;
using ::testing::AllOf;
using ::testing::HasSubstr;

class RestartGuardTest : public ::testing::Test {
 protected:
  absl::Status Start(int64_t step, const std::string& settings = "a", int64_t most = 3) {
    return CheckRestarts(*fs_, directory_.path(), step, settings, most);
  }
  void EndWith(int code, const std::string& message, int rank = 0) {
    const std::string name = "log/exit.rank" + std::to_string(rank) + ".json";
    ASSERT_THAT(WriteFileDurably(*fs_, directory_.File(name),
                                 "{\"exit_code\": " + std::to_string(code) + ", \"message\": \"" +
                                     message + "\"}"),
                IsOk());
  }
  testing::TempDir directory_;
  std::unique_ptr<Fs> fs_ = MakePosixFs();
};

TEST_F(RestartGuardTest, TheSameFailureFromTheSameStepEndsIt) {
  for (int start = 0; start < 3; ++start) {
    ASSERT_THAT(Start(20), IsOk());
    EndWith(70, "bug 4" + std::to_string(start));  // numbers differ, the failure does not
  }
  EXPECT_THAT(Start(20), Fails(ExitCode::kCheckpoint,
                               AllOf(HasSubstr("3 starts in a row"),
                                     HasSubstr("checkpoint step-20"), HasSubstr("bug 42"))));
}

TEST_F(RestartGuardTest, AWordlessEndCounts) {
  for (int start = 0; start < 4; ++start) ASSERT_THAT(Start(0, "a", 4), IsOk());
  EXPECT_THAT(Start(0, "a", 4), Fails(ExitCode::kCheckpoint, AllOf(HasSubstr("the beginning"),
                                                                   HasSubstr("without a word"))));
}

TEST_F(RestartGuardTest, ProgressAnotherFailureOtherSettingsAndGoodEndsBeginAgain) {
  const auto fail_twice = [&] {
    for (int start = 0; start < 2; ++start) {
      ASSERT_THAT(Start(20), IsOk());
      EndWith(3, "bad shard");
    }
  };
  fail_twice();
  EXPECT_THAT(Start(25), IsOk());
  fail_twice();
  EXPECT_THAT(Start(20, "b"), IsOk());
  fail_twice();
  EndWith(3, "another");
  EXPECT_THAT(Start(20), IsOk());
  fail_twice();
  EndWith(75, "stopped");
  EXPECT_THAT(Start(20), IsOk());
  for (int start = 0; start < 9; ++start) EXPECT_THAT(Start(20, "a", 0), IsOk());
}

TEST_F(RestartGuardTest, OldRecordsAreTaken) {
  ASSERT_THAT(Start(0), IsOk());
  EndWith(70, "bug", 1);
  ASSERT_THAT(Start(0), IsOk());
  EXPECT_FALSE(fs_->Exists(directory_.File("log/exit.rank1.json")));
  EXPECT_THAT(fs_->ReadFile(directory_.File("log/restarts.json")).value(), HasSubstr("bug"));
}

}  // namespace
}  // namespace osler
