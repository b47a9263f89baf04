// The layouts that a number of ranks allows, and how they compare.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/plan/step_time.h"

namespace osler {

struct RankedLayout {
  PlanLayout layout;
  int64_t memory = 0;  // of the rank that needs most
  StepTime time;
};

struct LayoutSearch {
  std::vector<RankedLayout> fitting;  // the fastest first; of equals, the one with less memory
  RankedLayout smallest;              // of all, by memory
  int64_t tried = 0;                  // that the model allows
  int64_t too_large() const { return tried - std::ssize(fitting); }
};

// Every way to write `ranks` as a product of the five axes that CheckLayout accepts, with each ZeRO
// level and one or two chunks a stage, each with the least recomputation that fits. `memory`: bytes
// of a rank. Config error when the model allows no layout of that many ranks. Compared by as many
// threads as there are cores; the result does not depend on them.
absl::StatusOr<LayoutSearch> SearchLayouts(const PlanModel& model, const PlanBatch& batch,
                                           const PlanFlops& flops, const PlanHardware& hardware,
                                           int ranks, int64_t memory);

// As `osler verify` writes it: "pipeline2.shard4.zero3.recompute"; "one rank".
std::string NameOf(const PlanLayout& layout);
// The settings of a configuration that give it: "mesh.pipeline=2", …
std::vector<std::string> SettingsOf(const PlanLayout& layout);

}  // namespace osler
