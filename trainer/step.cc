#include "trainer/step.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/failpoint.h"
#include "base/status_macros.h"
#include "base/torch_status.h"

namespace osler {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool IsFirst(const Mesh& mesh, Axis axis) { return mesh.comm(axis).rank() == 0; }

// A reader's packs are known to all its ranks; one of them speaks for it.
bool SpeaksForReader(const Mesh& mesh) {
  return IsFirst(mesh, Axis::kContext) && IsFirst(mesh, Axis::kTensor) &&
         IsFirst(mesh, Axis::kPipeline);
}

}  // namespace

ReaderShare ReaderOf(const Mesh& mesh) {
  const Communicator &data = mesh.comm(Axis::kData), &shard = mesh.comm(Axis::kShard);
  return {int64_t{data.rank()} * shard.size() + shard.rank(), int64_t{data.size()} * shard.size()};
}

BatchCounts SumCounts(const Mesh& mesh, const BatchCounts& own) {
  const int64_t share = SpeaksForReader(mesh) ? 1 : 0;
  const std::vector<int64_t> values = {share * own.targets, share * own.tokens, own.stop_requests,
                                       own.failed_saves, share * own.megaflops};
  at::Tensor sums = at::tensor(values, at::kLong);
  mesh.world().AllReduce(sums, ReduceOp::kSum, "counts").Wait();
  const auto* sum = sums.const_data_ptr<int64_t>();
  return {.targets = sum[0],
          .tokens = sum[1],
          .stop_requests = sum[2],
          .failed_saves = sum[3],
          .megaflops = sum[4]};
}

void SumLosses(const Mesh& mesh, at::Tensor& x) {
  const Communicator& pipeline = mesh.comm(Axis::kPipeline);
  const bool last_stage = pipeline.rank() == pipeline.size() - 1;
  if (!last_stage || !IsFirst(mesh, Axis::kTensor)) x.zero_();
  mesh.world().AllReduce(x, ReduceOp::kSum, "losses").Wait();
}

TrainStep::TrainStep(const Model& model, ParameterStore& store, Mesh& mesh, const StagePlan& stages,
                     const StepOptions& options, std::vector<ParameterGroup> groups)
    : model_(model),
      store_(store),
      mesh_(mesh),
      options_(options),
      optimizer_(store, options.adamw, std::move(groups)),
      residency_(store, mesh.comm(Axis::kShard)),
      tied_group_(TiedGroup(model, mesh.comm(Axis::kPipeline))),
      gradients_(store, mesh,
                 {.type = options.reduction,
                  .tied_group = tied_group_.get(),
                  .tied_slot = model.head_slot}),
      walk_({model, store, residency_, mesh.comm(Axis::kPipeline), mesh.world().recorder(), stages},
            options.walk) {}

MicroBatch TrainStep::MicroBatchOf(std::span<const Pack> packs, int64_t m, int64_t size) const {
  const size_t begin = std::min(static_cast<size_t>(m * size), packs.size());
  const size_t count = std::min(static_cast<size_t>(size), packs.size() - begin);
  return MakeMicroBatch(model_, packs.subspan(begin, count),
                        {.tensor = &mesh_.comm(Axis::kTensor),
                         .context = &mesh_.comm(Axis::kContext),
                         .context_method = options_.context_method,
                         .mlp_chunk_tokens = options_.mlp_chunk_tokens,
                         .device = store_.layout().device});
}

LossSum TrainStep::WalkMicroBatches(std::span<const Pack> packs, const StepPlan& plan) {
  const double scale = 1.0 / static_cast<double>(std::max<int64_t>(plan.targets, 1));
  // All readers take the same number of passes, so that none waits for another for ever.
  const int64_t passes = CeilDiv(CeilDiv(plan.packs, ReaderOf(mesh_).count), options_.micro_batch);
  return walk_.Run(
      passes, [&](int64_t m) { return MicroBatchOf(packs, m, options_.micro_batch); }, scale,
      gradients_);
}

std::vector<LossSum> TrainStep::Evaluate(std::span<const Pack> packs, int64_t passes) {
  std::vector<LossSum> losses =
      walk_.Evaluate(passes, [&](int64_t m) { return MicroBatchOf(packs, m, 1); });
  mesh_.ThrowIfFailed();
  return losses;
}

absl::StatusOr<StepResult> TrainStep::ComputeGradients(std::span<const Pack> packs,
                                                       const StepPlan& plan) {
  LossSum local;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    local = WalkMicroBatches(packs, plan);
    return absl::OkStatus();
  }));
  Failpoint("reduce");
  StepResult result;
  OSLER_RETURN_IF_ERROR(CatchTorch([&] {
    gradients_.Finish();
    at::Tensor loss = at::full({1}, local.sum, at::kDouble);
    SumLosses(mesh_, loss);
    result.loss = loss.item<double>() / static_cast<double>(std::max<int64_t>(plan.targets, 1));
    result.grad_norm = gradients_.GlobalNorm();
    mesh_.ThrowIfFailed();
    return absl::OkStatus();
  }));
  return result;
}

absl::Status TrainStep::Update(const StepPlan& plan, double grad_norm) {
  Failpoint("optimizer");
  return AgreeOnStatus(mesh_.world(), CatchTorch([&] {
                         optimizer_.Step(plan.number, plan.lr,
                                         ClipFactor(grad_norm, options_.clip_norm));
                         residency_.PiecesChanged();
                         return absl::OkStatus();
                       }));
}

absl::StatusOr<StepResult> TrainStep::Run(std::span<const Pack> packs, const StepPlan& plan) {
  OSLER_ASSIGN_OR_RETURN(StepResult result, ComputeGradients(packs, plan));
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) return result;
  OSLER_RETURN_IF_ERROR(Update(plan, result.grad_norm));
  result.updated = true;
  return result;
}

}  // namespace osler
