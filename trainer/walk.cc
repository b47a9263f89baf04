#include "trainer/walk.h"

#include <utility>

#include "trainer/stage_pass.h"

namespace osler {

struct Walk::Own {
  explicit Own(ParameterStore& store)
      : pipeline(MakeSingleCommunicator()),
        shard(MakeSingleCommunicator()),
        residency(store, *shard) {}
  std::unique_ptr<Communicator> pipeline, shard;
  Residency residency;
};

Walk::Walk(WalkParts parts, const WalkOptions& options)
    : Walk(nullptr, std::move(parts), options) {}
Walk::Walk(std::unique_ptr<Own> own, WalkParts parts, const WalkOptions& options)
    : own_(std::move(own)), parts_(std::move(parts)), options_(options) {}
Walk::Walk(Walk&&) noexcept = default;
Walk::~Walk() = default;

Walk Walk::Alone(const Model& model, ParameterStore& store, const WalkOptions& options) {
  auto own = std::make_unique<Own>(store);
  WalkParts parts{
      model, store, own->residency, *own->pipeline, own->pipeline->recorder(), WholeModel(model)};
  return Walk(std::move(own), std::move(parts), options);
}

LossSum Walk::Run(int64_t micro_batches, MicroBatchSource make, double gradient_scale,
                  GradientReducer& gradients) {
  gradients.Begin(micro_batches);
  const PassTask task{PassGoal::kGradients, micro_batches, make, gradient_scale, &gradients};
  StagePass pass(parts_, options_, task);
  pass.Execute();
  LossSum total;
  for (const LossSum& loss : pass.losses()) {
    total.sum += loss.sum;
    total.count += loss.count;
  }
  return total;
}

std::vector<LossSum> Walk::Evaluate(int64_t micro_batches, MicroBatchSource make) {
  const PassTask task{PassGoal::kLoss, micro_batches, make};
  StagePass pass(parts_, options_, task);
  pass.Execute();
  return pass.losses();
}

at::Tensor Walk::Hidden(const SequenceInputs& inputs) {
  const auto make = [&](int64_t) {
    MicroBatch batch;
    batch.inputs = inputs;
    return batch;
  };
  const PassTask task{PassGoal::kHidden, 1, make};
  StagePass pass(parts_, options_, task);
  pass.Execute();
  return pass.hidden();
}

}  // namespace osler
