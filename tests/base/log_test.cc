#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace osler {
namespace {

using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

TEST(LogTest, OneLineAMessageWithItsLevel) {
  CaptureStderr();
  LogInfo("read {} records", 12);
  LogWarning("{} skipped", 1);
  LogError("no {{braces}} lost");
  EXPECT_EQ(GetCapturedStderr(),
            "osler: read 12 records\nosler: warning: 1 skipped\nosler: error: no {braces} lost\n");
}

TEST(LogTest, TextIsNeverAFormat) {
  CaptureStderr();
  LogLine(LogLevel::kInfo, "100% {} %s {0}");
  LogLine(LogLevel::kError, "100% {} %s {0}");
  EXPECT_EQ(GetCapturedStderr(), "osler: 100% {} %s {0}\nosler: error: 100% {} %s {0}\n");
}

TEST(LogTest, OtherRanksSayWarningsOnlyAndTheirNumber) {
  CaptureStderr();
  SetLogRank(3, 4);
  LogInfo("quiet");
  LogWarning("loud");
  SetLogRank(0, 4);
  LogInfo("first");
  SetLogRank(0, 1);
  EXPECT_EQ(GetCapturedStderr(), "osler[3]: warning: loud\nosler[0]: first\n");
}

}  // namespace
}  // namespace osler
