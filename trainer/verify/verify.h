// Shows that a layout is the computation of one rank: the same steps of the same tiny model, and
// how far gradients, losses and parameters are apart. Both sides are the trainer's own TrainStep;
// in fp64 they differ by rounding alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"
#include "trainer/verify/layout.h"
#include "trainer/verify/problem.h"

namespace osler {

// What one rank computes.
struct VerifyReference {
  std::map<std::string, at::Tensor> gradients;   // of the first step, before clipping
  std::map<std::string, at::Tensor> parameters;  // after the last step
  std::vector<double> losses, norms;             // of each step
};
// An error of the bug class when a parameter's gradient is zero: then nothing could be seen of it.
absl::StatusOr<VerifyReference> ComputeVerifyReference(const VerifyProblem& problem);

// A difference, relative to what it is a difference of.
struct Deviation {
  std::string name;  // "model.norm.weight"
  double relative = 0;
  double limit = 0;
  bool ok() const { return relative <= limit; }  // no for NaN
};

struct VerifyResult {
  VerifyLayout layout;
  // Of each parameter: ‖Δg‖ / max(‖g‖, 1e-6 · global norm) over what all ranks hold, each copy
  // counted; and ‖Δp‖ / ‖p‖ after the last step.
  std::vector<Deviation> gradients, parameters;
  std::vector<Deviation> losses, norms;  // of each step: "loss of step 2", "norm of step 2"
  // What all ranks together sent along each axis in the first step.
  std::array<int64_t, kAxes> bytes{};
  double seconds = 0;

  // What is not ok, the worst first: "gradient of model.norm.weight".
  std::vector<std::string> Failures() const;
};

// Collective over `world`, which has layout.ranks() ranks; every rank returns the same result but
// for the seconds. Config error: the layout does not fit the model.
absl::StatusOr<VerifyResult> VerifyOnRanks(const VerifyProblem& problem,
                                           const VerifyReference& reference,
                                           const VerifyLayout& layout, Communicator& world);

// VerifyOnRanks on new threads of this process.
absl::StatusOr<VerifyResult> VerifyOnThreads(const VerifyProblem& problem,
                                             const VerifyReference& reference,
                                             const VerifyLayout& layout);

}  // namespace osler
