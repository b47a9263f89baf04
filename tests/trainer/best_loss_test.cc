#include "trainer/best_loss.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace osler {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The round (from 1) after which it wants to stop, or 0.
int StopsAfter(EarlyStopOptions options, const std::vector<double>& losses) {
  BestLoss best(options);
  for (size_t i = 0; i < losses.size(); ++i) {
    best.Observe(static_cast<int64_t>(10 * i), losses[i]);
    if (best.ShouldStop()) return static_cast<int>(i) + 1;
  }
  return 0;
}

TEST(BestLossTest, TheLowestIsTheBest) {
  BestLoss best({});
  EXPECT_TRUE(best.Observe(2, 3.0));
  EXPECT_FALSE(best.Observe(4, 3.0));  // equal is not lower
  EXPECT_TRUE(best.Observe(6, 2.5));
  EXPECT_FALSE(best.Observe(8, 2.6));
  EXPECT_EQ(best.state().loss, 2.5);
  EXPECT_EQ(best.state().step, 6);
}

TEST(BestLossTest, WithoutPatienceNothingStops) {
  EXPECT_EQ(StopsAfter({}, {1, 2, 3, 4, 5, 6, 7, 8}), 0);
}

TEST(BestLossTest, PatienceCountsRoundsInARow) {
  EXPECT_EQ(StopsAfter({.patience = 1}, {3, 2, 2}), 3);
  EXPECT_EQ(StopsAfter({.patience = 2}, {3, 4, 2, 3, 1, 2, 1}), 7);
  EXPECT_EQ(StopsAfter({.patience = 3}, {3, 4, 5, 2.9, 4, 5}), 0);
}

TEST(BestLossTest, FallsUpToMinDeltaAreNoImprovementButMayBeTheBest) {
  EXPECT_EQ(StopsAfter({.patience = 2, .min_delta = 0.5}, {3, 2.75, 2.5}), 3);
  // Small falls add up: measured against the last improvement, not the last round.
  EXPECT_EQ(StopsAfter({.patience = 2, .min_delta = 0.5}, {3, 2.75, 2.25, 2, 1.5}), 0);
  BestLoss best({.patience = 2, .min_delta = 0.5});
  best.Observe(1, 3);
  EXPECT_TRUE(best.Observe(2, 2.75));
  EXPECT_EQ(best.state().reference, 3);
  EXPECT_EQ(best.state().stale_rounds, 1);
}

TEST(BestLossTest, LossesThatAreNotFiniteAreNeverGood) {
  BestLoss best({.patience = 2});
  EXPECT_FALSE(best.Observe(1, kNan));
  EXPECT_EQ(best.state().loss, std::nullopt);
  EXPECT_TRUE(best.Observe(2, 5));
  EXPECT_FALSE(best.Observe(3, kNan));
  EXPECT_FALSE(best.Observe(4, -kInfinity));
  EXPECT_TRUE(best.ShouldStop());
  EXPECT_EQ(best.state().loss, 5);
}

TEST(BestLossTest, GoesOnFromItsStateAsIfNothingHadHappened) {
  const std::vector<double> losses = {5, 4, 4.5, 3.9, 3.95, 4.2, 4.1};
  const EarlyStopOptions options{.patience = 3, .min_delta = 0.05};
  for (size_t cut = 0; cut <= losses.size(); ++cut) {
    BestLoss whole(options), first(options);
    for (size_t i = 0; i < cut; ++i) first.Observe(static_cast<int64_t>(i), losses[i]);
    BestLoss second(options, first.state());
    for (size_t i = cut; i < losses.size(); ++i) second.Observe(static_cast<int64_t>(i), losses[i]);
    for (size_t i = 0; i < losses.size(); ++i) whole.Observe(static_cast<int64_t>(i), losses[i]);
    EXPECT_EQ(second.state(), whole.state()) << cut;
    EXPECT_TRUE(second.ShouldStop());
  }
}

TEST(BestLossTest, MorePatienceLiftsAStop) {
  BestLoss best({.patience = 1});
  best.Observe(1, 1);
  best.Observe(2, 2);
  EXPECT_TRUE(best.ShouldStop());
  EXPECT_FALSE(BestLoss({.patience = 2}, best.state()).ShouldStop());
}

}  // namespace
}  // namespace osler
