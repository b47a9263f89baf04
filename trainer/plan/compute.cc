#include "trainer/plan/compute.h"

#include <algorithm>

#include "base/status_macros.h"
#include "trainer/plan/layer_shape.h"

namespace osler {

int64_t KeysSeen(int64_t length, std::optional<int64_t> window) {
  const int64_t grows = std::min(length, window.value_or(length));
  return grows * (grows + 1) / 2 + (length - grows) * grows;
}

MeanKeys FullSequenceKeys(const Model& model, int64_t sequence_length) {
  MeanKeys keys;
  for (const Model::LayerKind& kind : model.layer_kinds) {
    keys.push_back(static_cast<double>(KeysSeen(sequence_length, kind.window)) /
                   static_cast<double>(sequence_length));
  }
  return keys;
}

double PlanFlops::Computed(const PlanBatch& batch, RecomputeMode recompute) const {
  const double again = recompute == RecomputeMode::kFull ? 1 : 0;
  const double chunked = batch.step.mlp_chunk_tokens > 0 ? gate_up : 0;
  return (3 + again) * matrices + chunked + (3.5 + again) * attention + 3 * head;
}

absl::StatusOr<PlanFlops> FlopsOf(const PlanModel& model, const MeanKeys& keys) {
  PlanFlops flops;
  LayerShape shape;
  for (const auto& block : model.model.blocks) {
    if (!IsLayer(*block)) continue;
    OSLER_ASSIGN_OR_RETURN(shape, LayerShapeOf(*block, model.store, model.model.head_dim));
    flops.matrices += 2 * static_cast<double>(shape.matrix_elements());
    flops.gate_up +=
        2 * static_cast<double>(shape.matrices["gate_proj"] + shape.matrices["up_proj"]);
  }
  for (size_t k = 0; k < keys.size(); ++k) {
    flops.attention += 4 * static_cast<double>(shape.query) * keys[k] *
                       static_cast<double>(model.model.layer_kinds[k].layers);
  }
  flops.head = 2 * static_cast<double>(HeadCost(model.model, model.store));
  return flops;
}

}  // namespace osler
