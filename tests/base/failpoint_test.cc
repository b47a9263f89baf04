// Each case runs in a process of its own: a process reads OSLER_FAILPOINTS once.
#include "base/failpoint.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>

namespace osler {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

void Arm(const char* rules) { setenv("OSLER_FAILPOINTS", rules, 1); }

[[noreturn]] void Leave(int code) { std::_Exit(code); }

TEST(FailpointDeathTest, KillsAtTheNamedPhaseOnly) {
  EXPECT_EXIT((Arm("save=kill"), Failpoint("load"), Failpoint("save"), Leave(9)),
              KilledBySignal(SIGKILL), "");
  EXPECT_EXIT((Arm("save=kill"), Failpoint("load"), Failpoint("saved"), Leave(9)),
              ExitedWithCode(9), "");
}

TEST(FailpointDeathTest, CountsVisits) {
  EXPECT_EXIT((Arm("save@3=kill"), Failpoint("save"), Failpoint("save"), Leave(9)),
              ExitedWithCode(9), "");
  EXPECT_EXIT(
      (Arm("save@3=kill"), Failpoint("save"), Failpoint("save"), Failpoint("save"), Leave(9)),
      KilledBySignal(SIGKILL), "");
}

TEST(FailpointDeathTest, ArmsSeveralRules) {
  EXPECT_EXIT((Arm("a@2=kill,b=term"), Failpoint("a"), Failpoint("b"), Leave(9)),
              KilledBySignal(SIGTERM), "");
}

TEST(FailpointDeathTest, TermCanBeHandled) {
  EXPECT_EXIT(
      (signal(SIGTERM, [](int) { std::_Exit(75); }), Arm("a=term"), Failpoint("a"), Leave(9)),
      ExitedWithCode(75), "");
}

TEST(FailpointDeathTest, StopSleeps) {
  EXPECT_EXIT(
      {
        Arm("a=stop:0.2");
        const auto begin = std::chrono::steady_clock::now();
        Failpoint("a");
        Failpoint("a");  // once only
        const std::chrono::duration<double> slept = std::chrono::steady_clock::now() - begin;
        Leave(slept.count() >= 0.2 ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

TEST(FailpointDeathTest, UnarmedDoesNothing) {
  EXPECT_EXIT((unsetenv("OSLER_FAILPOINTS"), Failpoint("a"), Leave(9)), ExitedWithCode(9), "");
  EXPECT_EXIT((Arm(""), Failpoint("a"), Leave(9)), ExitedWithCode(9), "");
}

TEST(FailpointDeathTest, MisspeltRulesAbort) {
  for (const char* rules : {"a=explode", "a", "=kill", "a@0=kill", "a@x=kill", "a=stop:x"}) {
    EXPECT_EXIT((Arm(rules), Failpoint("b"), Leave(9)), KilledBySignal(SIGABRT), "check failed")
        << rules;
  }
}

}  // namespace
}  // namespace osler
