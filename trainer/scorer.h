// Token log-probabilities of a model directory, the way an outsider checks a model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "model/registry.h"

namespace osler {

// Not thread-safe.
class Scorer {
 public:
  static absl::StatusOr<std::unique_ptr<Scorer>> Load(Fs& fs, const std::string& model_directory,
                                                      at::ScalarType dtype);
  int64_t vocab_size() const { return spec_.vocab_size; }

  // For each sequence of n ≥ 1 ids, n − 1 values: [t] is log p(token t + 1 | tokens ≤ t). Sequences
  // share one forward pass as documents that never see each other. PRE: ids in [0, vocab_size).
  absl::StatusOr<std::vector<std::vector<double>>> LogProbs(
      const std::vector<std::vector<int32_t>>& sequences);

 private:
  Scorer() = default;
  ModelSpec spec_;
  ParameterStore store_;
  Model model_;
};

}  // namespace osler
