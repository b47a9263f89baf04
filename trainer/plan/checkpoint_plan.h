// How large a checkpoint is, and how often to save one.
#pragma once

#include <cstdint>

#include "trainer/plan/memory.h"

namespace osler {

struct CheckpointAssumptions {
  double disk_bytes = 1e9;    // a second, of all ranks together
  double mtbf_hours = 50000;  // of one rank: between two failures that end a run
};

struct CheckpointPlan {
  int64_t weights = 0, optimizer = 0;  // bytes of the two files (docs/checkpoint.md)
  double save_s = 0;
  double mtbf_s = 0;      // of all ranks together
  double interval_s = 0;  // that loses the least time
  double lost = 0;        // share of the time that saving and repeating then take

  int64_t bytes() const { return weights + optimizer; }
};

// Young's interval √(2 · save · MTBF) (Young, "A first order approximation to the optimum
// checkpoint interval", 1974; Daly, 2006, finds the same to first order).
CheckpointPlan PlanCheckpoints(const PlanModel& model, const PlanBatch& batch, int64_t ranks,
                               const CheckpointAssumptions& assumptions);

}  // namespace osler
