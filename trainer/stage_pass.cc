#include "trainer/stage_pass.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "trainer/gradient_reduce.h"
#include "trainer/loss/parallel_loss.h"
#include "trainer/residency.h"

namespace osler {
namespace {

using Kind = PipelineAction::Kind;

// The number of blocks when none trains, or when nothing is to be trained.
int64_t LowestTrainable(const Model& model, const ParameterStore& store, PassGoal goal) {
  const auto& blocks = model.blocks;
  if (goal != PassGoal::kGradients) return static_cast<int64_t>(blocks.size());
  const auto trainable = [&](int64_t slot) { return store.slot(slot).trainable; };
  const auto lowest = std::find_if(blocks.begin(), blocks.end(), [&](const auto& block) {
    return std::any_of(block->slots().begin(), block->slots().end(), trainable);
  });
  return lowest - blocks.begin();
}

// Whether a block of the rank's stages has the slot.
bool AnyBlockHas(const Model& model, const StagePlan& plan, int rank, int64_t slot) {
  for (int chunk = 0; chunk < plan.shape.chunks; ++chunk) {
    const auto [begin, end] = plan.BlocksOf(plan.VirtualStage(rank, chunk));
    for (int64_t b = begin; b < end; ++b) {
      const auto& slots = model.blocks[static_cast<size_t>(b)]->slots();
      if (std::find(slots.begin(), slots.end(), slot) != slots.end()) return true;
    }
  }
  return false;
}

// A run's input and memo on that device, which is no copy where they are there.
BlockRun RecomputedFrom(const BlockRun& run, at::Device device) {
  const auto moved = [&](const at::Tensor& x) { return x.defined() ? x.to(device) : x; };
  const AttentionOutput& attention = run.memo.attention;
  return {.x = moved(run.x),
          .leaves = {},
          .out = {},
          .memo = {{moved(attention.out_THD), moved(attention.lse_TH)}}};
}

}  // namespace

StagePass::StagePass(const WalkParts& parts, const WalkOptions& options, const PassTask& task)
    : parts_(parts),
      options_(options),
      task_(task),
      blocks_(static_cast<int64_t>(parts.model.blocks.size())),
      lowest_(LowestTrainable(parts.model, parts.store, task.goal)),
      head_slots_{parts.model.head_slot},
      block_holds_head_(
          AnyBlockHas(parts.model, parts.plan, parts.pipeline.rank(), parts.model.head_slot)),
      actions_(ScheduleOf(parts.pipeline.rank())),
      visits_(ListVisits()),
      exchange_(
          parts.pipeline, parts.plan, lowest_, [this](int rank) { return ScheduleOf(rank); },
          [this](int64_t m) {
            const SequenceInputs& inputs = FlightOf(m).batch.inputs;
            const ParameterSlot& any = parts_.store.slot(SlotsOf(visits_.front()).front());
            const int64_t parts = inputs.tensor == nullptr ? 1 : inputs.tensor->size();
            return at::empty({inputs.tokens_T.size(0) / parts, parts_.model.hidden_size},
                             any.local.options());
          }),
      losses_(static_cast<size_t>(task.micro_batches)),
      device_losses_(static_cast<size_t>(task.micro_batches)) {}

const std::vector<LossSum>& StagePass::losses() {
  for (size_t m = 0; m < losses_.size(); ++m) {
    if (!device_losses_[m].defined()) continue;
    losses_[m].sum += device_losses_[m].item<double>();
    device_losses_[m].reset();
  }
  return losses_;
}

std::vector<PipelineAction> StagePass::ScheduleOf(int rank) const {
  return task_.goal == PassGoal::kGradients
             ? PipelineSchedule(parts_.plan.shape, task_.micro_batches, rank)
             : ForwardSchedule(parts_.plan.shape, task_.micro_batches);
}

StagePlan::Range StagePass::BlocksOf(const PipelineAction& action) const {
  return parts_.plan.BlocksOf(parts_.plan.VirtualStage(parts_.pipeline.rank(), action.chunk));
}

bool StagePass::IsLastStage(const PipelineAction& action) const {
  return BlocksOf(action).end == blocks_;
}

Graph StagePass::GraphOf(int64_t block) const {
  if (block < lowest_) return Graph::kNone;
  return block == lowest_ ? Graph::kParameters : Graph::kParametersAndInput;
}

std::vector<StagePass::Visit> StagePass::ListVisits() const {
  std::vector<Visit> visits;
  for (const PipelineAction& action : actions_) {
    const auto [begin, end] = BlocksOf(action);
    if (action.kind == Kind::kForward) {
      for (int64_t b = begin; b < end; ++b) visits.push_back({b, action.kind});
      if (IsLastStage(action) && task_.goal != PassGoal::kHidden)
        visits.push_back({blocks_, action.kind});
    } else {
      for (int64_t b = end; b-- > std::max(begin, lowest_);) visits.push_back({b, action.kind});
    }
  }
  return visits;
}

const std::vector<int64_t>& StagePass::SlotsOf(const Visit& visit) const {
  if (visit.block == blocks_) return head_slots_;
  return parts_.model.blocks[static_cast<size_t>(visit.block)]->slots();
}

std::string StagePass::Label(const Visit& visit) const {
  if (visit.block == blocks_) return "head";
  return absl::StrCat(parts_.model.blocks[static_cast<size_t>(visit.block)]->name(),
                      visit.kind == Kind::kForward ? " forward" : " backward");
}

void StagePass::Enter() {
  visit_label_ = Label(visits_[visit_]);
  visit_range_.emplace(at::RecordScope::USER_SCOPE);
  visit_range_->before(visit_label_);
  parts_.recorder.SetBlock(visit_label_);
  parts_.residency.Acquire(SlotsOf(visits_[visit_]));
  if (visit_ + 1 < visits_.size()) parts_.residency.Prefetch(SlotsOf(visits_[visit_ + 1]));
}

void StagePass::Leave() {
  parts_.residency.Release(SlotsOf(visits_[visit_++]));
  visit_range_.reset();
}

StagePass::InFlight& StagePass::FlightOf(int64_t micro_batch) {
  const auto [flight, fresh] = in_flight_.try_emplace(micro_batch);
  if (fresh) {
    const int64_t directions = task_.goal == PassGoal::kGradients ? 2 : 1;
    flight->second.batch = task_.make(micro_batch);
    flight->second.actions_left = directions * parts_.plan.shape.chunks;
  }
  return flight->second;
}

void StagePass::Execute() {
  if (actions_.empty()) return;
  exchange_.Expect(actions_.front());
  for (size_t i = 0; i < actions_.size(); ++i) {
    if (i + 1 < actions_.size()) exchange_.Expect(actions_[i + 1]);
    const PipelineAction& action = actions_[i];
    action.kind == Kind::kForward ? Forward(action) : Backward(action);
    const auto flight = in_flight_.find(action.micro_batch);
    if (--flight->second.actions_left == 0) in_flight_.erase(flight);
  }
  exchange_.Settle();
}

BlockRun StagePass::Parked(const BlockRun& run) const {
  const bool moves = options_.activations == ActivationPlace::kCpu;
  return RecomputedFrom(run, moves ? at::Device(at::kCPU) : run.out.device());
}

void StagePass::ForwardBlock(int64_t b, InFlight& flight, at::Tensor& x) {
  const bool trains = b >= lowest_;
  const bool remembers = trains && options_.recompute == RecomputeMode::kSelective;
  BlockRun run = RunBlock(*parts_.model.blocks[static_cast<size_t>(b)], parts_.store, x,
                          flight.batch.inputs, recomputes() ? Graph::kNone : GraphOf(b),
                          remembers ? Remember::kMemo : Remember::kNothing);
  x = run.out.detach();
  if (trains) flight.runs[b] = recomputes() ? Parked(run) : std::move(run);
}

void StagePass::Forward(const PipelineAction& action) {
  Failpoint("forward");
  InFlight& flight = FlightOf(action.micro_batch);
  at::Tensor x = exchange_.Receive(action);
  const auto [begin, end] = BlocksOf(action);
  for (int64_t b = begin; b < end; ++b) {
    Enter();
    ForwardBlock(b, flight, x);
    Leave();
  }
  if (IsLastStage(action)) {
    FinishForward(action.micro_batch, x);
  } else {
    exchange_.Send(action, x);
  }
}

void StagePass::FinishForward(int64_t micro_batch, const at::Tensor& x) {
  InFlight& flight = FlightOf(micro_batch);
  LossSum& loss = losses_[static_cast<size_t>(micro_batch)];
  if (task_.goal == PassGoal::kHidden) {
    hidden_ = x;
    return;
  }
  Enter();
  if (task_.goal == PassGoal::kGradients) {
    loss = TrainHead(micro_batch, x);
  } else {
    const at::NoGradGuard no_grad;
    const at::Tensor log_probs = ParallelTargetLogProbs(
        flight.batch.inputs.tensor, x, parts_.store.slot(parts_.model.head_slot).local,
        flight.batch.targets_T, kLossChunkTokens);
    loss = {0, flight.batch.target_tokens};
    device_losses_[static_cast<size_t>(micro_batch)] = log_probs.to(at::kDouble).sum().neg();
  }
  Leave();
}

LossSum StagePass::TrainHead(int64_t micro_batch, const at::Tensor& x) {
  InFlight& flight = FlightOf(micro_batch);
  const int64_t slot = parts_.model.head_slot;
  const ParameterSlot& head = parts_.store.slot(slot);
  const at::Tensor sum = head.trainable ? task_.gradients->Accumulator(slot) : at::Tensor();
  LinearCrossEntropyOptions options{.chunk_tokens = kLossChunkTokens,
                                    .gradient_scale = task_.gradient_scale};
  if (!x.is_cpu()) {
    options.chunk_tokens = kDeviceLossChunkTokens;
    options.chunk_bytes = kDeviceLossChunkBytes;
  }
  LinearCrossEntropyResult loss =
      ParallelLoss(flight.batch.inputs.tensor, x, head.local, flight.batch.targets_T, sum, options);
  device_losses_[static_cast<size_t>(micro_batch)] = std::move(loss.loss_on_device);
  flight.gradient = std::move(loss.grad_hidden_TD);
  if (!block_holds_head_) task_.gradients->BlockDone(head_slots_);
  return {loss.loss_sum, loss.count};
}

void StagePass::Backward(const PipelineAction& action) {
  Failpoint("backward");
  InFlight& flight = FlightOf(action.micro_batch);
  at::Tensor gradient =
      IsLastStage(action) ? std::move(flight.gradient) : exchange_.Receive(action);
  const auto [begin, end] = BlocksOf(action);
  for (int64_t b = end; b-- > std::max(begin, lowest_);) {
    Enter();
    gradient = BackwardThrough(b, flight, gradient);
    Leave();
  }
  exchange_.Send(action, gradient);
}

at::Tensor StagePass::BackwardThrough(int64_t b, InFlight& flight, const at::Tensor& gradient) {
  const Block& block = *parts_.model.blocks[static_cast<size_t>(b)];
  BlockRun run = std::move(flight.runs.extract(b).mapped());
  if (recomputes()) {
    run = RunBlockAgain(block, parts_.store, RecomputedFrom(run, gradient.device()),
                        flight.batch.inputs, GraphOf(b));
  }
  BlockGradients gradients = BackwardBlock(block, std::move(run), gradient, [this](int64_t slot) {
    return task_.gradients->Accumulator(slot);
  });
  for (auto& [slot, value] : gradients.slots) task_.gradients->Add(slot, std::move(value));
  task_.gradients->BlockDone(block.slots());
  return std::move(gradients.input);
}

}  // namespace osler
