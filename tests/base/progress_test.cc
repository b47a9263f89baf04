#include "base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// What `work` writes to stderr when that is a terminal.
std::string OnTerminal(const std::function<void()>& work) {
  int terminal = -1, end = -1;
  if (openpty(&terminal, &end, nullptr, nullptr, nullptr) != 0) return "";
  const int saved = dup(STDERR_FILENO);
  dup2(end, STDERR_FILENO);
  work();
  dup2(saved, STDERR_FILENO);
  close(saved);
  char buffer[1 << 14];
  const ssize_t n = read(terminal, buffer, sizeof buffer);
  close(end);
  close(terminal);
  return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : "";
}

void Pause() { std::this_thread::sleep_for(std::chrono::milliseconds(120)); }

TEST(ProgressTest, DrawsABarWithRateAndEtaOnATerminal) {
  const std::string text = OnTerminal([] {
    Progress progress("reading", 200, "records");
    Pause();
    progress.Update(100, "loss 1.5");
    progress.Finish();
    progress.Finish();
  });
  if (text.empty()) GTEST_SKIP() << "no pseudo-terminal here";
  EXPECT_THAT(text, AllOf(HasSubstr("\rreading"), HasSubstr("████████████░░░░░░░░░░░░"),
                          HasSubstr(" 50% 100/200 records"), HasSubstr("/s · ETA "),
                          HasSubstr("loss 1.5"), EndsWith("\n")));
}

TEST(ProgressTest, UnknownTotalsHaveNoBar) {
  const std::string text = OnTerminal([] {
    Progress progress("reading", 0, "records");
    Pause();
    progress.Update(7);
  });
  if (text.empty()) GTEST_SKIP() << "no pseudo-terminal here";
  EXPECT_THAT(text, AllOf(HasSubstr("reading 7 records"), ::testing::Not(HasSubstr("ETA")),
                          ::testing::Not(HasSubstr("█"))));
}

TEST(ProgressTest, SecondsLeftCountOnlyWhatThisStartDid) {
  Progress progress("training", 1000, "steps", 900);
  progress.Silence();
  EXPECT_EQ(progress.SecondsLeft(), 0);  // nothing is known yet
  Pause();
  progress.Update(950);  // 50 steps in the pause, 50 to go; from 0 it would be the pause's 1/19
  const double left = progress.SecondsLeft();
  EXPECT_GE(left, 0.12);
  progress.Update(910);
  EXPECT_GE(progress.SecondsLeft(), 9 * left);
  progress.Update(1000);
  EXPECT_EQ(progress.SecondsLeft(), 0);
}

TEST(ProgressTest, SilencedSaysNothing) {
  const std::string text = OnTerminal([] {
    Progress progress("reading", 10, "records");
    progress.Silence();
    Pause();
    progress.Update(5);
    progress.Finish();
    write(STDERR_FILENO, "end", 3);  // something to read
  });
  if (text.empty()) GTEST_SKIP() << "no pseudo-terminal here";
  EXPECT_EQ(text, "end");
}

TEST(ProgressTest, ShortWorkLeavesNoLinesInAFile) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("reading", 10, "records");
    for (int i = 0; i <= 10; ++i) progress.Update(i);
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace osler
