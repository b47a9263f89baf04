// One optimizer step of one rank under any layout: gradients of this reader's packs, summed over
// the mesh, clipped by their global norm, and one AdamW update.
//
// The packs of a global batch are dealt over the readers, one for each (data, shard) coordinate.
// The ranks of one reader (its context, tensor and pipeline ranks) are given the same packs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "data/loader.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "parallel/context_attention.h"
#include "parallel/mesh.h"
#include "trainer/gradient_reduce.h"
#include "trainer/micro_batch.h"
#include "trainer/optim/adamw.h"
#include "trainer/parameter_groups.h"
#include "trainer/residency.h"
#include "trainer/walk.h"

namespace osler {

// This rank's reader: number data · |shard| + shard of |data| · |shard|.
ReaderShare ReaderOf(const Mesh& mesh);

// What a global batch holds.
struct BatchCounts {
  int64_t targets = 0, tokens = 0;
  int64_t stop_requests = 0;  // ranks that were asked to stop
  int64_t failed_saves = 0;   // ranks that know of a checkpoint that could not be saved
  int64_t megaflops = 0;      // what its model FLOPs are (PlanFlops::model), in 10⁶
};
// Sums each reader's counts and FLOPs once, and every rank's requests and failures, over all ranks.
// Collective; throws c10::Error.
BatchCounts SumCounts(const Mesh& mesh, const BatchCounts& own);

// Sums over all ranks what each holds of losses: in the last stage of the pipeline, a context rank
// has those of its tokens, and tensor ranks have the same ones. `x`: fp64 or int64, in place.
// Collective; throws c10::Error.
void SumLosses(const Mesh& mesh, at::Tensor& x);

struct StepOptions {
  WalkOptions walk;
  int64_t micro_batch = 1;       // packs a forward pass of a reader
  int64_t mlp_chunk_tokens = 0;  // rows of an MLP's inner activations at once; 0: all
  ContextMethod context_method = ContextMethod::kAuto;
  ReductionType reduction = ReductionType::kAccumulator;
  double clip_norm = 0;  // 0: no clipping
  AdamWOptions adamw;
};

// What all ranks know of a step before it begins.
struct StepPlan {
  int64_t number = 0;  // from 1
  double lr = 0;
  int64_t packs = 0;    // of all readers; reader r of n has at most ⌈packs / n⌉
  int64_t targets = 0;  // of all readers
};

struct StepResult {
  double loss = 0;       // mean over the targets of the global batch
  double grad_norm = 0;  // before clipping
  bool updated = false;  // false: loss or norm are not finite, and nothing was changed
};

// Every rank of the mesh makes the same calls. Not thread-safe; model, store and mesh must outlive
// it.
class TrainStep {
 public:
  // PRE: the store holds the values of this rank's stage of `stages`. The optimizer begins with
  // moments of zero. Collective; throws c10::Error.
  TrainStep(const Model& model, ParameterStore& store, Mesh& mesh, const StagePlan& stages,
            const StepOptions& options, std::vector<ParameterGroup> groups);

  // Every rank returns the same status and result, unless it leaves in the middle: then the others
  // get a device error.
  absl::StatusOr<StepResult> Run(std::span<const Pack> packs, const StepPlan& plan);

  // The first half of Run: afterwards every slot's gradient_piece is that of the mean loss over the
  // global batch, before clipping. A rank that fails in it leaves at once, without a word to the
  // others, which wait for it in the middle of theirs: whoever calls must see that they hear of it
  // (ControlPlane::Leave; thread ranks drop their communicators).
  absl::StatusOr<StepResult> ComputeGradients(std::span<const Pack> packs, const StepPlan& plan);
  // The second half: clips the gradients and updates the parameters.
  absl::Status Update(const StepPlan& plan, double grad_norm);
  // Waits until the parameters that Update changed are whole again wherever they are held whole.
  // Throws c10::Error.
  void Settle() { residency_.Settle(); }

  // The loss of each of this reader's packs, forward only, one a pass. All readers take as many
  // `passes`, at least as many as any has packs. Throws c10::Error.
  std::vector<LossSum> Evaluate(std::span<const Pack> packs, int64_t passes);

  AdamW& optimizer() { return optimizer_; }

 private:
  LossSum WalkMicroBatches(std::span<const Pack> packs, const StepPlan& plan);
  // Number m of those with `size` packs each; empty past the last pack.
  MicroBatch MicroBatchOf(std::span<const Pack> packs, int64_t m, int64_t size) const;

  const Model& model_;
  ParameterStore& store_;
  Mesh& mesh_;
  StepOptions options_;
  AdamW optimizer_;
  Residency residency_;
  std::unique_ptr<Communicator> tied_group_;
  GradientReducer gradients_;
  Walk walk_;
};

}  // namespace osler
