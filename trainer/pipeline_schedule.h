// The order in which each rank of a pipeline computes the micro-batches of a step.
//
// One chunk a rank: 1F1B (Narayanan et al., "Memory-Efficient Pipeline-Parallel DNN Training",
// 2021: PipeDream-Flush). Several: interleaved 1F1B (Narayanan et al., "Efficient Large-Scale
// Language Model Training on GPU Clusters Using Megatron-LM", 2021, §2.2.2), which takes
// micro-batches in groups of as many as there are stages. A last group that is not full is the
// paper's order without the micro-batches that do not exist: micro-batches never wait for each
// other's data, so leaving some out leaves an order that cannot wait in a circle. One stage: F0 B0
// F1 B1 ….
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "trainer/stage_plan.h"

namespace osler {

struct PipelineAction {
  enum class Kind { kForward, kBackward };
  Kind kind = Kind::kForward;
  int64_t micro_batch = 0;
  int chunk = 0;
  auto operator<=>(const PipelineAction&) const = default;
};

// Of one rank: each (micro-batch, chunk) once forward and once backward. PRE: 0 ≤ rank < stages.
std::vector<PipelineAction> PipelineSchedule(const PipelineShape& shape, int64_t micro_batches,
                                             int rank);
// The same without going back, for evaluation: the same order on every rank.
std::vector<PipelineAction> ForwardSchedule(const PipelineShape& shape, int64_t micro_batches);

// The largest number of (micro-batch, chunk) pairs that are forward and not yet back on a rank,
// whatever the number of micro-batches: stages − rank with one chunk, else
// 2 · (stages − 1 − rank) + (chunks − 1) · stages + 1.
int64_t MaxInFlight(const PipelineShape& shape, int rank);

}  // namespace osler
