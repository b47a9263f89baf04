#include "trainer/metrics.h"

#include <gtest/gtest.h>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace osler {
namespace {

using ::osler::testing::IsOk;
using ::testing::HasSubstr;

StepReport Report(int64_t step) {
  StepReport report;
  report.step = step;
  report.loss = 1.0 / 3;
  report.first_pack = 4 * (step - 1);
  report.end_pack = 4 * step;
  return report;
}

TEST(MetricsTest, FloatsRoundTrip) {
  const std::string line = ToJsonLine(Report(1));
  EXPECT_THAT(line, HasSubstr("\"loss\":0.3333333333333333,"));
  EXPECT_THAT(line, HasSubstr("\"packs\":[0,4]"));
  EXPECT_EQ(line.find("validation_loss"), std::string::npos);
  EXPECT_EQ(line.find("group_lr"), std::string::npos);
}

TEST(MetricsTest, ValidationByNameAndGroups) {
  StepReport report = Report(1);
  report.group_lr = {0.5, 0.25};
  report.validation = ValidationLoss{2.5, {{"notes", 2}, {"letters", 3}}};
  EXPECT_THAT(ToJsonLine(report),
              HasSubstr("\"group_lr\":[0.5,0.25],\"validation_loss\":2.5,"
                        "\"validation_losses\":{\"notes\":2.0,\"letters\":3.0}}"));
}

TEST(MetricsTest, ResumeDropsATornTailAndLaterSteps) {
  const testing::TempDir dir;
  const auto fs = MakePosixFs();
  const std::string path = dir.File("log/metrics.jsonl");
  {
    ASSERT_OK_AND_ASSIGN(const auto log, MetricsLog::Open(*fs, path, 0));
    for (int64_t step = 1; step <= 3; ++step) log->Append(Report(step));
  }
  ASSERT_OK_AND_ASSIGN(auto torn, fs->Open(path, OpenMode::kAppend));
  ASSERT_THAT(torn->Append("{\"step\":4,\"lo"), IsOk());
  ASSERT_THAT(torn->Close(), IsOk());
  {
    ASSERT_OK_AND_ASSIGN(const auto log, MetricsLog::Open(*fs, path, 2));
    log->Append(Report(3));
  }
  ASSERT_OK_AND_ASSIGN(const std::string text, fs->ReadFile(path));
  EXPECT_EQ(text, ToJsonLine(Report(1)) + ToJsonLine(Report(2)) + ToJsonLine(Report(3)));
}

TEST(MetricsTest, AFullDiskHoldsLinesBackAndTearsNothing) {
  const testing::TempDir dir;
  const auto posix = MakePosixFs();
  ASSERT_OK_AND_ASSIGN(const auto fs, MakeFaultFs(*posix, "write:metrics@2=ENOSPC"));
  const std::string path = dir.File("metrics.jsonl");
  ASSERT_OK_AND_ASSIGN(const auto log, MetricsLog::Open(*fs, path, 0));
  for (int64_t step = 1; step <= 3; ++step) log->Append(Report(step));
  ASSERT_OK_AND_ASSIGN(const std::string text, posix->ReadFile(path));
  EXPECT_EQ(text, ToJsonLine(Report(1)) + ToJsonLine(Report(2)) + ToJsonLine(Report(3)));
}

}  // namespace
}  // namespace osler
