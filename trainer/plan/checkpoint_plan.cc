#include "trainer/plan/checkpoint_plan.h"

#include <cmath>

namespace osler {

CheckpointPlan PlanCheckpoints(const PlanModel& model, const PlanBatch& batch, int64_t ranks,
                               const CheckpointAssumptions& assumptions) {
  CheckpointPlan plan;
  const int64_t tensors = batch.dtype == at::kBFloat16 ? 3 : 2;  // master, two moments
  for (size_t i = 0; i < model.store.slots().size(); ++i) {
    const int64_t count = model.store.LocalCount(static_cast<int64_t>(i));
    plan.weights += count * batch.element_bytes();
    if (model.store.slots()[i].trainable) plan.optimizer += count * tensors * batch.sum_bytes();
  }
  plan.save_s = static_cast<double>(plan.bytes()) / assumptions.disk_bytes;
  plan.mtbf_s = assumptions.mtbf_hours * 3600 / static_cast<double>(ranks);
  plan.interval_s = std::sqrt(2 * plan.save_s * plan.mtbf_s);
  plan.lost = plan.save_s / plan.interval_s + plan.interval_s / (2 * plan.mtbf_s);
  return plan;
}

}  // namespace osler
