// How long a step takes under a layout, by a model that is simple enough to state (docs/plan.md):
// work at a given rate, messages at the rate of the slowest link of their axis, the pipeline's
// bubble. It ranks layouts; it does not promise seconds.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "trainer/plan/compute.h"
#include "trainer/plan/space.h"

namespace osler {

// What ranks run on. The defaults are an H100's.
struct PlanHardware {
  double peak_flops = 989e12;  // a second, dense bf16
  double mfu = 0.45;           // of it, that matrix products and attention reach
  int node_ranks = 8;          // that share the fast links
  double node_bytes = 300e9;   // a second and direction, of a rank inside a node
  double link_bytes = 25e9;    // between nodes
  double hidden = 0.9;         // share of reductions and gathers that work can hide
};

struct StepTime {
  double compute_s = 0;               // of the slowest stage, without waiting
  double bubble_s = 0;                // waiting while the pipeline fills and drains
  double exchange_s = 0;              // on the way of the work: tensor, context, pipeline
  double reduce_s = 0;                // of data and shard, what work does not hide
  std::array<double, kAxes> bytes{};  // that the busiest rank sends along each axis
  double total_s() const { return compute_s + bubble_s + exchange_s + reduce_s; }
};

// Config error: CheckLayout.
absl::StatusOr<StepTime> EstimateStep(PlanSpace& space, const PlanLayout& layout,
                                      const PlanFlops& flops, const PlanHardware& hardware);

}  // namespace osler
