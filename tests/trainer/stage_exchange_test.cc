// Where results go, for every shape and every lowest trained block: what is sent is what is needed,
// and a bounded number of results on their way never makes the ranks wait in a circle.
#include "trainer/stage_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

using Kind = PipelineAction::Kind;
using OnRank = std::pair<int, PipelineAction>;

// One block a virtual stage.
StagePlan PlanOf(const PipelineShape& shape) {
  StagePlan plan{shape, std::vector<int64_t>(static_cast<size_t>(shape.virtual_stages()) + 1)};
  std::iota(plan.begins.begin(), plan.begins.end(), 0);
  return plan;
}

// Calls body(plan, lowest, micro_batches).
template <typename Body>
void ForEachCase(Body body) {
  for (const PipelineShape& shape :
       {PipelineShape{1, 1}, PipelineShape{2, 1}, PipelineShape{4, 1}, PipelineShape{2, 2},
        PipelineShape{3, 2}, PipelineShape{2, 3}, PipelineShape{5, 3}}) {
    for (int64_t lowest = 0; lowest <= shape.virtual_stages(); ++lowest) {
      for (const int64_t m : {1, 2, 3, 5, 11, 40}) {
        SCOPED_TRACE(absl::StrCat(shape.stages, " stages, ", shape.chunks, " chunks, block ",
                                  lowest, " is the lowest trained, ", m, " micro-batches"));
        body(PlanOf(shape), lowest, m);
      }
    }
  }
}

TEST(StageExchangeTest, ResultsGoWhereTheyAreNeededAndNowhereElse) {
  ForEachCase([](const StagePlan& plan, int64_t lowest, int64_t micro_batches) {
    std::set<OnRank> delivered;
    for (int rank = 0; rank < plan.shape.stages; ++rank) {
      for (const PipelineAction& action : PipelineSchedule(plan.shape, micro_batches, rank)) {
        const auto delivery = DeliveryOf(plan, rank, action, lowest);
        if (!delivery.has_value()) continue;
        ASSERT_EQ(delivery->action.kind, action.kind);
        ASSERT_EQ(delivery->action.micro_batch, action.micro_batch);
        const int step = action.kind == Kind::kForward ? 1 : -1;
        ASSERT_EQ(plan.VirtualStage(delivery->rank, delivery->action.chunk),
                  plan.VirtualStage(rank, action.chunk) + step);
        ASSERT_TRUE(delivered.insert({delivery->rank, delivery->action}).second);
      }
    }
    const int last = plan.shape.virtual_stages() - 1;
    for (int rank = 0; rank < plan.shape.stages; ++rank) {
      for (const PipelineAction& action : PipelineSchedule(plan.shape, micro_batches, rank)) {
        const int stage = plan.VirtualStage(rank, action.chunk);
        const bool needed =
            action.kind == Kind::kForward ? stage > 0 : stage < last && stage >= lowest;
        ASSERT_EQ(delivered.contains({rank, action}), needed);
      }
    }
  });
}

// A rank begins its next action when what it needs was sent and at most `limit` of its own results
// have not been taken. Returns whether all come to their end.
bool Finishes(const StagePlan& plan, const std::vector<std::vector<PipelineAction>>& schedules,
              int64_t lowest, size_t limit) {
  std::map<OnRank, int> needs;  // what → who sends it
  std::set<OnRank> sent;        // and not taken
  std::vector<size_t> next(schedules.size(), 0), waiting(schedules.size(), 0);
  for (size_t r = 0; r < schedules.size(); ++r) {
    for (const PipelineAction& action : schedules[r]) {
      const auto delivery = DeliveryOf(plan, static_cast<int>(r), action, lowest);
      if (delivery.has_value()) needs[{delivery->rank, delivery->action}] = static_cast<int>(r);
    }
  }
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t r = 0; r < schedules.size(); ++r) {
      // Runs as far ahead as it can.
      while (next[r] < schedules[r].size() && waiting[r] <= limit) {
        const OnRank here{static_cast<int>(r), schedules[r][next[r]]};
        if (needs.contains(here)) {
          if (sent.erase(here) == 0) break;
          --waiting[static_cast<size_t>(needs[here])];
        }
        const auto delivery = DeliveryOf(plan, here.first, here.second, lowest);
        if (delivery.has_value()) {
          sent.insert({delivery->rank, delivery->action});
          ++waiting[r];
        }
        ++next[r];
        moved = true;
      }
    }
  }
  for (size_t r = 0; r < schedules.size(); ++r) {
    if (next[r] != schedules[r].size()) return false;
  }
  return true;
}

TEST(StageExchangeTest, BoundedResultsOnTheirWayCloseNoCircle) {
  ForEachCase([](const StagePlan& plan, int64_t lowest, int64_t micro_batches) {
    const auto limit = static_cast<size_t>(2 * MaxInFlight(plan.shape, 0));
    std::vector<std::vector<PipelineAction>> train, evaluate;
    for (int rank = 0; rank < plan.shape.stages; ++rank) {
      train.push_back(PipelineSchedule(plan.shape, micro_batches, rank));
      evaluate.push_back(ForwardSchedule(plan.shape, micro_batches));
    }
    ASSERT_TRUE(Finishes(plan, train, lowest, limit));
    ASSERT_TRUE(Finishes(plan, evaluate, lowest, limit));
  });
}

TEST(StageExchangeTest, TooTightABoundClosesOne) {
  const PipelineShape shape{3, 2};
  std::vector<std::vector<PipelineAction>> train;
  for (int rank = 0; rank < shape.stages; ++rank) train.push_back(PipelineSchedule(shape, 9, rank));
  EXPECT_FALSE(Finishes(PlanOf(shape), train, 0, 0));
}

}  // namespace
}  // namespace osler
