#include "trainer/schedule.h"

#include <gtest/gtest.h>

namespace osler {
namespace {

config::Schedule Make(config::ScheduleType type, int64_t warmup, double floor) {
  config::Schedule schedule;
  schedule.set_type(type);
  schedule.set_warmup_steps(warmup);
  schedule.set_min_lr_ratio(floor);
  return schedule;
}

TEST(ScheduleTest, WarmsUpLinearlyToThePeak) {
  const auto schedule = Make(config::COSINE, 4, 0);
  EXPECT_DOUBLE_EQ(LearningRateFactor(schedule, 1, 100), 0.25);
  EXPECT_DOUBLE_EQ(LearningRateFactor(schedule, 4, 100), 1);
  EXPECT_LT(LearningRateFactor(schedule, 5, 100), 1);
}

TEST(ScheduleTest, WithoutWarmupStartsBelowThePeakAndEndsAtTheFloor) {
  const auto schedule = Make(config::COSINE, 0, 0.1);
  EXPECT_GT(LearningRateFactor(schedule, 1, 10), 0.9);
  EXPECT_DOUBLE_EQ(LearningRateFactor(schedule, 5, 10), 0.55);
  EXPECT_DOUBLE_EQ(LearningRateFactor(schedule, 10, 10), 0.1);
}

TEST(ScheduleTest, LinearAndConstant) {
  EXPECT_DOUBLE_EQ(LearningRateFactor(Make(config::LINEAR, 0, 0.5), 5, 10), 0.75);
  EXPECT_DOUBLE_EQ(LearningRateFactor(Make(config::CONSTANT, 2, 0), 9, 10), 1);
  EXPECT_DOUBLE_EQ(LearningRateFactor(Make(config::CONSTANT, 2, 0), 1, 10), 0.5);
}

TEST(ScheduleTest, WarmupLongerThanTheRunNeverPasses1) {
  EXPECT_DOUBLE_EQ(LearningRateFactor(Make(config::COSINE, 20, 0), 10, 10), 0.5);
}

}  // namespace
}  // namespace osler
