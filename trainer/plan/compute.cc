#include "trainer/plan/compute.h"

#include <algorithm>

#include "base/status_macros.h"
#include "trainer/plan/layer_shape.h"

namespace osler {

int64_t KeysSeen(int64_t length, std::optional<int64_t> window) {
  const int64_t grows = std::min(length, window.value_or(length));
  return grows * (grows + 1) / 2 + (length - grows) * grows;
}

MeanKeys DocumentKeys(const Model& model, const std::vector<int64_t>& lengths) {
  int64_t tokens = 0;
  for (const int64_t length : lengths) tokens += length;
  MeanKeys keys;
  for (const Model::LayerKind& kind : model.layer_kinds) {
    int64_t seen = 0;
    for (const int64_t length : lengths) seen += KeysSeen(length, kind.window);
    keys.push_back(static_cast<double>(seen) / static_cast<double>(std::max<int64_t>(tokens, 1)));
  }
  return keys;
}

MeanKeys FullSequenceKeys(const Model& model, int64_t sequence_length) {
  return DocumentKeys(model, {sequence_length});
}

double PlanFlops::Computed(const PlanBatch& batch, RecomputeMode recompute) const {
  const double again = recompute == RecomputeMode::kNone ? 0 : 1;
  const double attention_again = recompute == RecomputeMode::kFull ? 1 : 0;
  const double chunked = batch.step.mlp_chunk_tokens > 0 ? gate_up : 0;
  return (3 + again) * matrices + chunked + (3.5 + attention_again) * attention + 3 * head;
}

absl::StatusOr<PlanFlops> FlopsOf(const Model& model, const ParameterStore& store,
                                  const MeanKeys& keys, double target_share) {
  PlanFlops flops;
  LayerShape shape;
  for (const auto& block : model.blocks) {
    if (!IsLayer(*block)) continue;
    OSLER_ASSIGN_OR_RETURN(shape, LayerShapeOf(*block, store, model.head_dim));
    flops.matrices += 2 * static_cast<double>(shape.matrix_elements());
    flops.gate_up +=
        2 * static_cast<double>(shape.matrices["gate_proj"] + shape.matrices["up_proj"]);
  }
  for (size_t k = 0; k < keys.size(); ++k) {
    flops.attention += 4 * static_cast<double>(shape.query) * keys[k] *
                       static_cast<double>(model.layer_kinds[k].layers);
  }
  flops.head = 2 * static_cast<double>(HeadCost(model, store)) * target_share;
  return flops;
}

}  // namespace osler
