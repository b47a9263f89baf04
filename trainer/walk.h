// The walk: a model's blocks forward and back over the micro-batches of a step, under any layout.
//
// A rank walks the blocks of its pipeline stage in the order of its schedule; alone that is F0 B0
// F1 B1 …. Forward hands each block detached leaves of its input and parameters; backward takes
// autograd::grad of one block at a time, gives parameter gradients to the reducer and passes the
// input's gradient on, within the stage or to the one before. The loss and its gradients come with
// the last stage's forward. A block's parameters are in memory while it runs, and the next block's
// are on their way.
//
// Ranks of one pipeline, context and tensor family walk the same packs; ranks that share parameters
// along the shard axis walk equally many micro-batches.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "parallel/communicator.h"
#include "trainer/gradient_reduce.h"
#include "trainer/micro_batch.h"
#include "trainer/residency.h"
#include "trainer/stage_plan.h"

namespace osler {

// kNone keeps every block's graph; kFull keeps every block's input and computes its forward again
// when going back; kSelective keeps its memo, too (attention's output), and computes the rest
// again.
enum class RecomputeMode { kNone, kSelective, kFull };
// As configurations write them.
inline constexpr std::array<std::string_view, 3> kRecomputeNames{"none", "selective", "full"};
inline std::string_view NameOf(RecomputeMode mode) {
  return kRecomputeNames[static_cast<size_t>(mode)];
}

// Where what recomputation needs waits for its way back: on the device that made it, or copied to
// CPU memory, which is no copy where that is the device.
enum class ActivationPlace { kOnDevice, kCpu };

struct WalkOptions {
  RecomputeMode recompute = RecomputeMode::kNone;
  ActivationPlace activations = ActivationPlace::kOnDevice;
};

// This rank's own part of a loss: that of its tokens (a context rank has some of a micro-batch's
// rows), in the last stage of the pipeline, zero in others. Ranks of the tensor axis all have the
// same. So the whole is the sum over the axes pipeline, data, shard and context, and not tensor
// (SumLosses in trainer/step.h).
struct LossSum {
  double sum = 0;  // Σ −log p over targets
  int64_t count = 0;
};

// Makes micro-batch m of those of a step or an evaluation. Called once for each, in no promised
// order, shortly before its first use; what it returns is dropped after the last.
using MicroBatchSource = absl::FunctionRef<MicroBatch(int64_t m)>;

// What a walk works with. All but the plan must outlive it.
struct WalkParts {
  const Model& model;
  ParameterStore& store;  // holds SlotsOfStage of the plan
  Residency& residency;
  Communicator& pipeline;
  FlightRecorder& recorder;  // of the rank: told which block is at work
  StagePlan plan;
};

// All ranks of a pipeline make the same calls. Not thread-safe. Throws c10::Error (CatchTorch at
// the caller), c10::DistError for what other ranks did.
class Walk {
 public:
  Walk(WalkParts parts, const WalkOptions& options);
  // For a process by itself, whose store holds the whole model.
  static Walk Alone(const Model& model, ParameterStore& store, const WalkOptions& options);
  Walk(Walk&&) noexcept;
  ~Walk();

  // Begins the reducer's step and gives it gradient_scale · ∂(sum of losses)/∂parameter of every
  // trainable slot; Finish is the caller's. Blocks below the lowest one with a trainable parameter
  // run forward only and keep nothing, and no gradient travels to stages without trainable blocks.
  LossSum Run(int64_t micro_batches, MicroBatchSource make, double gradient_scale,
              GradientReducer& gradients);
  // Forward only, one loss for each micro-batch. Needs no reducer and changes nothing.
  std::vector<LossSum> Evaluate(int64_t micro_batches, MicroBatchSource make);
  // The last hidden state, without gradients: this rank's rows [T, D] in the last stage, undefined
  // in others.
  at::Tensor Hidden(const SequenceInputs& inputs);

 private:
  struct Own;  // what a walk alone has by itself
  Walk(std::unique_ptr<Own> own, WalkParts parts, const WalkOptions& options);

  std::unique_ptr<Own> own_;
  WalkParts parts_;
  WalkOptions options_;
};

}  // namespace osler
