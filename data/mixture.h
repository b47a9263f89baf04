// Which source gives the next sample, so that after any number of samples each source stands within
// one sample of its share.
//
// Picking the source with the largest deficit drifts beyond one sample from four sources on; this
// is the rule of Tijdeman ("The chairman assignment problem", 1980): among the sources whose
// deficit is large enough, the one whose deadline comes first. The deviation stays below 1 - 1/(2K
// - 2). Integer arithmetic: the same on every machine.
#pragma once

#include <cstdint>
#include <vector>

namespace osler {

// Immutable; the caller keeps the counters.
class Mixture {
 public:
  // PRE: weights finite, ≥ 0, at least one > 0.
  explicit Mixture(const std::vector<double>& weights);
  // The source of the next sample after taken[k] samples of each source k.
  int32_t Choose(const std::vector<int64_t>& taken) const;
  // Whether the counters are within one sample of the shares.
  bool Fits(const std::vector<int64_t>& taken) const;

 private:
  std::vector<int64_t> shares_;  // of 2^50, at least 1 for a positive weight
  int64_t total_ = 0;
};

}  // namespace osler
