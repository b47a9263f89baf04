// What `osler plan` found, as a table for people and JSON lines for programs.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "trainer/plan/checkpoint_plan.h"
#include "trainer/plan/epoch.h"
#include "trainer/plan/layouts.h"

namespace osler {

inline constexpr size_t kShownLayouts = 10;

struct PlanReport {
  std::string family, precision;
  int64_t parameters = 0, trained = 0;
  int64_t steps = 0;  // train.steps
  PlanBatch batch;
  PlanLayout layout;
  std::map<RecomputeMode, std::vector<RankMemory>> memory;  // by stage, under each train.recompute
  PlanFlops flops;
  PlanEpoch epoch;
  StepTime time;
  CheckpointPlan checkpoint;
  std::optional<LayoutSearch> search;
  std::optional<int64_t> memory_limit;  // of the search: bytes of a rank

  double tokens_per_step() const;  // of full packs, unless the data says how full they are
};

std::string PlanText(const PlanReport& report);
// A line each: "model", "memory" (a stage and recompute setting), "flops", "epoch", "step",
// "checkpoint", "search", "layout" (the best ones).
std::string PlanJson(const PlanReport& report);

// "79.4 GiB".
std::string BytesText(double bytes);

}  // namespace osler
