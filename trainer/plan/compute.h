// Floating-point operations of training, counted from the matrices that a model declares and the
// (query, key) pairs that its masks let through. Pure arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/plan/memory.h"

namespace osler {

// The keys that the tokens of a causal document of that many tokens see together; with a window,
// each at most so many.
int64_t KeysSeen(int64_t length, std::optional<int64_t> window);

// By layer kind of the model, a token's mean.
using MeanKeys = std::vector<double>;
// Of documents of these lengths.
MeanKeys DocumentKeys(const Model& model, const std::vector<int64_t>& lengths);
// Of documents that fill a sequence: the most that there can be.
MeanKeys FullSequenceKeys(const Model& model, int64_t sequence_length);

// Of a mean token, forward. A product of n multiply-adds counts 2 n.
struct PlanFlops {
  double matrices = 0;   // of all layers
  double gate_up = 0;    // of these: the MLPs' first two, computed again with mlp_chunk_tokens
  double attention = 0;  // scores and sums: 4 · heads · head width · keys seen, over all layers
  double head = 0;       // of the tokens with a target

  double forward() const { return matrices + attention + head; }
  // What the usual MFU counts: three times forward.
  double model() const { return 3 * forward(); }
  // What is computed: back takes twice the forward products of matrices and the head, 2.5 times
  // those of attention, which makes its scores again; recomputation the layers' forward once more,
  // without attention where its output is kept.
  double Computed(const PlanBatch& batch, RecomputeMode recompute) const;
};
// `target_share`: of the tokens, those with a target.
absl::StatusOr<PlanFlops> FlopsOf(const Model& model, const ParameterStore& store,
                                  const MeanKeys& keys, double target_share);

}  // namespace osler
