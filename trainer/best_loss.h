// The lowest validation loss of a run, and whether validation has stopped improving.
//
// A pure function of the losses observed: every rank that sees the same ones decides the same, and
// a resumed run that is given the state of its checkpoint decides as if it had never stopped.
#pragma once

#include <cstdint>
#include <optional>

namespace osler {

struct EarlyStopOptions {
  int64_t patience = 0;  // rounds without improvement that end the run; 0: never
  double min_delta = 0;  // what a loss must fall by, at least and excluded, to be an improvement
};

// What a checkpoint keeps.
struct BestLossState {
  std::optional<double> loss;       // the lowest so far; none before the first finite one
  int64_t step = 0;                 // where it was measured
  std::optional<double> reference;  // the loss of the last improvement by more than min_delta
  int64_t stale_rounds = 0;         // since then
  bool operator==(const BestLossState&) const = default;
};

// Not thread-safe.
class BestLoss {
 public:
  explicit BestLoss(EarlyStopOptions options, BestLossState state = {})
      : options_(options), state_(state) {}

  // Notes the loss of one validation round; returns whether it is lower than all before. A loss
  // that is not finite is never an improvement.
  bool Observe(int64_t step, double loss);
  // Whether `patience` rounds in a row brought no improvement.
  bool ShouldStop() const {
    return options_.patience > 0 && state_.stale_rounds >= options_.patience;
  }
  const BestLossState& state() const { return state_; }

 private:
  EarlyStopOptions options_;
  BestLossState state_;
};

}  // namespace osler
