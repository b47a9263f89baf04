// Schedules of every shape against a simulated pipeline that knows only which results an action
// needs, and the literal 1F1B orders of the papers.
#include "trainer/pipeline_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

using Kind = PipelineAction::Kind;
using Schedules = std::vector<std::vector<PipelineAction>>;

std::string Spell(const std::vector<PipelineAction>& actions) {
  std::string text;
  for (const PipelineAction& a : actions) {
    absl::StrAppend(&text, text.empty() ? "" : " ", a.kind == Kind::kForward ? "F" : "B",
                    a.micro_batch,
                    a.chunk > 0 ? std::string(static_cast<size_t>(a.chunk), '\'') : "");
  }
  return text;
}

Schedules AllRanks(const PipelineShape& shape, int64_t micro_batches) {
  Schedules all;
  for (int r = 0; r < shape.stages; ++r) all.push_back(PipelineSchedule(shape, micro_batches, r));
  return all;
}

// Executes the ranks' orders: each action begins when its rank is free and what it needs is there.
class Pipeline {
 public:
  Pipeline(const PipelineShape& shape, int64_t forward_time, int64_t backward_time)
      : shape_(shape), forward_time_(forward_time), backward_time_(backward_time) {}

  // When the last rank is done; nullopt when the ranks wait for each other for ever.
  std::optional<int64_t> Finish(const Schedules& schedules) {
    std::vector<size_t> next(schedules.size(), 0);
    std::vector<int64_t> free(schedules.size(), 0);
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t r = 0; r < schedules.size(); ++r) {
        while (next[r] < schedules[r].size()) {
          const PipelineAction& action = schedules[r][next[r]];
          const auto ready = Ready(static_cast<int>(r), action);
          if (!ready.has_value()) break;
          const bool forward = action.kind == Kind::kForward;
          free[r] = std::max(free[r], *ready) + (forward ? forward_time_ : backward_time_);
          done_[Key(action.kind, Stage(static_cast<int>(r), action), action.micro_batch)] = free[r];
          ++next[r];
          moved = true;
        }
      }
    }
    for (size_t r = 0; r < schedules.size(); ++r) {
      if (next[r] != schedules[r].size()) return std::nullopt;
    }
    return *std::max_element(free.begin(), free.end());
  }

 private:
  using DoneKey = std::pair<int64_t, int64_t>;
  static DoneKey Key(Kind kind, int stage, int64_t m) {
    return {kind == Kind::kForward ? stage : -1 - stage, m};
  }
  int Stage(int rank, const PipelineAction& action) const {
    return action.chunk * shape_.stages + rank;
  }
  std::optional<int64_t> Ready(int rank, const PipelineAction& action) const {
    const int stage = Stage(rank, action), last = shape_.virtual_stages() - 1;
    if (action.kind == Kind::kForward) {
      return stage == 0 ? 0 : When(Key(Kind::kForward, stage - 1, action.micro_batch));
    }
    return stage == last ? When(Key(Kind::kForward, stage, action.micro_batch))
                         : When(Key(Kind::kBackward, stage + 1, action.micro_batch));
  }
  std::optional<int64_t> When(const DoneKey& key) const {
    const auto found = done_.find(key);
    return found == done_.end() ? std::nullopt : std::optional(found->second);
  }

  PipelineShape shape_;
  int64_t forward_time_, backward_time_;
  std::map<DoneKey, int64_t> done_;
};

// Calls body(shape, micro_batches) over many shapes.
template <typename Body>
void ForEachShape(Body body) {
  for (int stages = 1; stages <= 7; ++stages) {
    for (int chunks = 1; chunks <= (stages == 1 ? 1 : 4); ++chunks) {
      for (int64_t m = 1; m <= 22; ++m) {
        SCOPED_TRACE(absl::StrCat(stages, " stages, ", chunks, " chunks, ", m, " micro-batches"));
        body(PipelineShape{stages, chunks}, m);
      }
    }
  }
}

TEST(PipelineScheduleTest, OneStageFinishesAMicroBatchBeforeTheNext) {
  EXPECT_EQ(Spell(PipelineSchedule({1, 1}, 3, 0)), "F0 B0 F1 B1 F2 B2");
}

// PipeDream-Flush, figure 4 of Narayanan et al. 2021 (top).
TEST(PipelineScheduleTest, OneForwardOneBackward) {
  const auto all = AllRanks({3, 1}, 5);
  EXPECT_EQ(Spell(all[0]), "F0 F1 F2 B0 F3 B1 F4 B2 B3 B4");
  EXPECT_EQ(Spell(all[1]), "F0 F1 B0 F2 B1 F3 B2 F4 B3 B4");
  EXPECT_EQ(Spell(all[2]), "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4");
}

// Figure 4, bottom: device 4 of 4, two chunks, 8 micro-batches (its chunk 1 is our ').
TEST(PipelineScheduleTest, InterleavedAsInThePaper) {
  EXPECT_EQ(Spell(PipelineSchedule({4, 2}, 8, 3)),
            "F0 F1 F2 F3 F0' B0' F1' B1' F2' B2' F3' B3' F4 B0 F5 B1 F6 B2 F7 B3 F4' B4' F5' B5' "
            "F6' B6' F7' B7' B4 B5 B6 B7");
}

TEST(PipelineScheduleTest, AGroupThatIsNotFull) {
  EXPECT_EQ(Spell(PipelineSchedule({2, 2}, 3, 1)), "F0 F1 F0' B0' F1' B1' F2 B0 B1 F2' B2' B2");
}

TEST(PipelineScheduleTest, EveryPairOnceForwardAndOnceBack) {
  ForEachShape([](const PipelineShape& shape, int64_t micro_batches) {
    for (const auto& actions : AllRanks(shape, micro_batches)) {
      std::set<std::pair<int64_t, int>> forward, back;
      for (const PipelineAction& a : actions) {
        ASSERT_GE(a.micro_batch, 0);
        ASSERT_LT(a.micro_batch, micro_batches);
        ASSERT_LT(a.chunk, shape.chunks);
        const std::pair pair(a.micro_batch, a.chunk);
        if (a.kind == Kind::kForward) {
          ASSERT_TRUE(forward.insert(pair).second);
        } else {
          ASSERT_TRUE(forward.contains(pair));
          ASSERT_TRUE(back.insert(pair).second);
        }
      }
      ASSERT_EQ(back.size(), static_cast<size_t>(micro_batches * shape.chunks));
      ASSERT_EQ(forward.size(), back.size());
    }
  });
}

TEST(PipelineScheduleTest, InFlightIsBoundedByTheStageNotByTheMicroBatches) {
  ForEachShape([](const PipelineShape& shape, int64_t micro_batches) {
    for (int rank = 0; rank < shape.stages; ++rank) {
      int64_t now = 0, most = 0;
      for (const PipelineAction& a : PipelineSchedule(shape, micro_batches, rank)) {
        now += a.kind == Kind::kForward ? 1 : -1;
        most = std::max(most, now);
      }
      ASSERT_LE(most, MaxInFlight(shape, rank));
      const bool full = micro_batches >= 3 * shape.stages;
      ASSERT_EQ(full ? most : MaxInFlight(shape, rank), MaxInFlight(shape, rank));
    }
  });
}

// The bubble is (stages − 1) · (forward + backward) of one chunk when groups are full (the paper's
// (p − 1) / (v · m)); otherwise at most what full groups would take.
TEST(PipelineScheduleTest, NobodyWaitsForEverAndTheBubbleIsThePapers) {
  for (const auto& [forward, backward] : {std::pair(1, 1), std::pair(1, 2), std::pair(2, 7)}) {
    ForEachShape([&](const PipelineShape& shape, int64_t micro_batches) {
      const auto end = Pipeline(shape, forward, backward).Finish(AllRanks(shape, micro_batches));
      ASSERT_TRUE(end.has_value()) << "the ranks wait for each other";
      const auto with_bubble = [&](int64_t m) {
        return (m * shape.chunks + shape.stages - 1) * (forward + backward);
      };
      const bool full = shape.chunks == 1 || micro_batches % shape.stages == 0;
      if (full) {
        ASSERT_EQ(*end, with_bubble(micro_batches));
      } else {
        ASSERT_LT(*end, with_bubble(micro_batches + shape.stages - micro_batches % shape.stages));
      }
    });
  }
}

TEST(PipelineScheduleTest, ForwardOnlyHasNoBackwardAndFinishes) {
  ForEachShape([](const PipelineShape& shape, int64_t micro_batches) {
    const auto actions = ForwardSchedule(shape, micro_batches);
    ASSERT_EQ(actions.size(), static_cast<size_t>(micro_batches * shape.chunks));
    ASSERT_TRUE(std::all_of(actions.begin(), actions.end(),
                            [](const auto& a) { return a.kind == Kind::kForward; }));
    const Schedules all(static_cast<size_t>(shape.stages), actions);
    const auto end = Pipeline(shape, 1, 1).Finish(all);
    ASSERT_TRUE(end.has_value());
    if (micro_batches % shape.stages == 0) {
      ASSERT_EQ(*end, micro_batches * shape.chunks + shape.stages - 1);
    }
  });
}

TEST(PipelineScheduleTest, TheSimulationFindsACircle) {
  const Schedules circle = {
      {{Kind::kForward, 0, 0}, {Kind::kBackward, 0, 0}, {Kind::kForward, 1, 0}},
      {{Kind::kForward, 0, 0}, {Kind::kForward, 1, 0}, {Kind::kBackward, 0, 0}}};
  EXPECT_EQ(Pipeline({2, 1}, 1, 1).Finish(circle), std::nullopt);
}

}  // namespace
}  // namespace osler
