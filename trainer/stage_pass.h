// One rank's part in one pass over micro-batches: the actions of its schedule, each a chunk of
// blocks forward or back, with parameters gathered before a block and freed after it. What is kept
// between an action forward and the one back lives here. Private to Walk.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "trainer/block_run.h"
#include "trainer/pipeline_schedule.h"
#include "trainer/stage_exchange.h"
#include "trainer/walk.h"

namespace osler {

// Of logits held at once; the kernel lowers it for large vocabularies. A device's matrix units want
// more rows than a CPU's caches.
inline constexpr int64_t kLossChunkTokens = 512;
inline constexpr int64_t kDeviceLossChunkTokens = 4096;
inline constexpr int64_t kDeviceLossChunkBytes = int64_t{512} << 20;

enum class PassGoal { kHidden, kLoss, kGradients };

struct PassTask {
  PassGoal goal = PassGoal::kHidden;
  int64_t micro_batches = 1;
  MicroBatchSource make;
  double gradient_scale = 0;  // these two for kGradients
  GradientReducer* gradients = nullptr;
};

// Not thread-safe. What it is given must outlive it. Throws c10::Error.
class StagePass {
 public:
  StagePass(const WalkParts& parts, const WalkOptions& options, const PassTask& task);

  void Execute();
  // By micro-batch; zero where this rank has no part in the loss. Waits for the device.
  const std::vector<LossSum>& losses();
  // The last micro-batch's last hidden state where goal is kHidden and this is the last stage.
  const at::Tensor& hidden() const { return hidden_; }

 private:
  // Of a micro-batch between its first action and its last.
  struct InFlight {
    MicroBatch batch;
    int64_t actions_left = 0;
    std::map<int64_t, BlockRun> runs;  // by block; recomputing, x and memo alone
    at::Tensor gradient;               // of the last hidden state
  };

  void ForwardBlock(int64_t block, InFlight& flight, at::Tensor& x);
  BlockRun Parked(const BlockRun& run) const;  // all that recomputation needs, where it waits
  void Forward(const PipelineAction& action);
  void Backward(const PipelineAction& action);
  void FinishForward(int64_t micro_batch, const at::Tensor& x);
  LossSum TrainHead(int64_t micro_batch, const at::Tensor& x);
  at::Tensor BackwardThrough(int64_t block, InFlight& flight, const at::Tensor& gradient);

  InFlight& FlightOf(int64_t micro_batch);
  std::vector<PipelineAction> ScheduleOf(int rank) const;
  StagePlan::Range BlocksOf(const PipelineAction& action) const;
  bool IsLastStage(const PipelineAction& action) const;
  Graph GraphOf(int64_t block) const;
  bool recomputes() const { return options_.recompute != RecomputeMode::kNone; }

  // A block (past the last one: the head) whose parameters are needed.
  struct Visit {
    int64_t block = 0;
    PipelineAction::Kind kind = PipelineAction::Kind::kForward;
  };
  std::vector<Visit> ListVisits() const;  // in the order of the pass
  const std::vector<int64_t>& SlotsOf(const Visit& visit) const;
  std::string Label(const Visit& visit) const;
  void Enter();  // the next visit: its parameters are there, those of the one after on their way
  void Leave();

  const WalkParts& parts_;
  const WalkOptions& options_;
  const PassTask& task_;
  const int64_t blocks_;  // of the model
  const int64_t lowest_;  // the first block with something to train
  const std::vector<int64_t> head_slots_;
  const bool
      block_holds_head_;  // tied, with the embedding on this rank, which completes the gradient
  const std::vector<PipelineAction> actions_;
  const std::vector<Visit> visits_;
  size_t visit_ = 0;
  std::string visit_label_;
  std::optional<at::RecordFunction> visit_range_;  // for profilers
  StageExchange exchange_;
  std::map<int64_t, InFlight> in_flight_;
  std::vector<LossSum> losses_;
  std::vector<at::Tensor> device_losses_;  // by micro-batch: sums that are not in losses_ yet
  at::Tensor hidden_;
};

}  // namespace osler
