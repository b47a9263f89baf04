#include "trainer/plan/memory.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "base/status_macros.h"
#include "trainer/gradient_reduce.h"
#include "trainer/parameter_groups.h"
#include "trainer/plan/space.h"
#include "trainer/plan/walk_memory.h"
#include "trainer/run_layout.h"

namespace osler {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a rank has from the first step to the last.
void AddState(const SlotSizes& slots, const std::vector<int64_t>& present, const PlanBatch& batch,
              int64_t staged, Ledger& ledger) {
  if (batch.staged == StagedCopy::kKept) ledger.Add(Use::kStaged, staged);
  const bool copies = batch.dtype == at::kBFloat16 || batch.step.adamw.state == StatePlace::kCpu;
  for (const int64_t slot : present) {
    const int64_t piece = slots.pieces[static_cast<size_t>(slot)], flat = slots.flat(slot);
    ledger.Add(Use::kParameters, (slots.cuts_parameters ? piece : flat) * batch.element_bytes());
    if (!slots.trained[static_cast<size_t>(slot)]) continue;
    ledger.Add(Use::kGradients, (slots.cuts_gradients ? piece : flat) * batch.sum_bytes());
    ledger.Add(Use::kOptimizer, piece * batch.sum_bytes() * (copies ? 3 : 2));
  }
}

// After the walk: the norm of each gradient is taken in fp64.
void AddAfterStep(const SlotSizes& slots, const std::vector<int64_t>& present,
                  const PlanBatch& batch, int64_t staged, Ledger& ledger) {
  int64_t piece = 0;
  for (const int64_t slot : present) {
    if (slots.trained[static_cast<size_t>(slot)])
      piece = std::max(piece, slots.pieces[static_cast<size_t>(slot)]);
  }
  ledger.SetPlace(WalkMemory::kNorm);
  if (batch.sum_bytes() < 8) ledger.Pass(Use::kReduction, std::min(piece, kNormChunk) * 8);
  if (batch.staged != StagedCopy::kAtTheEnd) return;
  ledger.SetPlace(WalkMemory::kCheckpoint);
  ledger.Pass(Use::kStaged, staged);
}

// An earlier stage keeps more micro-batches, so of stages with as many blocks the first is worst.
std::vector<int> ChooseStages(const StagePlan& plan, StageChoice choice) {
  std::vector<int> stages;
  std::set<int64_t> seen;
  for (int stage = 0; stage < plan.shape.stages; ++stage) {
    int64_t blocks = 0;
    for (int chunk = 0; chunk < plan.shape.chunks; ++chunk) {
      const StagePlan::Range range = plan.BlocksOf(plan.VirtualStage(stage, chunk));
      blocks += range.end - range.begin;
    }
    const bool ends = stage <= 1 || stage == plan.shape.stages - 1;
    if (seen.insert(blocks).second || ends || choice == StageChoice::kAll) stages.push_back(stage);
  }
  return stages;
}

}  // namespace

StagedCopy StagedCopyOf(const config::Train& config) {
  const config::Checkpoint& checkpoint = config.checkpoint();
  if (!checkpoint.async()) return StagedCopy::kNever;
  const bool on_the_way = checkpoint.every_steps() > 0 || checkpoint.keep_best();
  return on_the_way ? StagedCopy::kKept : StagedCopy::kAtTheEnd;
}

absl::StatusOr<PlanModel> MakePlanModel(const config::Train& config, ModelSpec spec) {
  PlanModel planned{.spec = std::move(spec), .store = {}, .model = {}};
  planned.model = planned.spec.build(planned.store);
  OSLER_RETURN_IF_ERROR(GroupParameters(config, planned.store).status());
  return planned;
}

int PlanLayout::ranks() const {
  return std::accumulate(mesh.sizes.begin(), mesh.sizes.end(), 1, std::multiplies<>());
}

PlanLayout PlanLayoutOf(const config::Train& config, const MeshShape& mesh) {
  return {mesh, PlaceOptionsOf(config), StepOptionsOf(config).walk.recompute};
}

int64_t PlanBatch::passes(int64_t readers) const {
  return CeilDiv(CeilDiv(global_batch, readers), step.micro_batch);
}

PlanBatch PlanBatchOf(const config::Train& config) {
  return {.dtype = DtypeOf(config.train().precision()),
          .sequence_length = config.data().sequence_length(),
          .global_batch = config.train().global_batch(),
          .staged = StagedCopyOf(config),
          .step = StepOptionsOf(config)};
}

absl::StatusOr<std::vector<RankMemory>> PredictMemory(PlanSpace& space, const PlanLayout& layout,
                                                      StageChoice choice) {
  OSLER_RETURN_IF_ERROR(space.Check(layout));
  OSLER_ASSIGN_OR_RETURN(const SlotSizes* slots, space.Slots(layout));
  OSLER_ASSIGN_OR_RETURN(const MicroBatchSizes* sizes, space.MicroBatch(layout));
  const StageSlots& stages = space.Stages(layout);
  const PlanBatch& batch = space.batch();
  const int64_t passes = batch.passes(layout.readers());
  // More micro-batches than these only repeat what they do.
  const int64_t enough = MaxInFlight(stages.plan.shape, 0) + stages.plan.shape.stages;
  const WalkMemoryParts parts{.model = space.model().model,
                              .slots = *slots,
                              .stages = stages.plan,
                              .sizes = *sizes,
                              .layout = layout,
                              .batch = batch,
                              .micro_batches = std::min(passes, enough)};
  std::vector<RankMemory> ranks;
  for (const int stage : ChooseStages(stages.plan, choice)) {
    const std::vector<int64_t>& present = stages.slots[static_cast<size_t>(stage)];
    OSLER_ASSIGN_OR_RETURN(const int64_t staged, space.StagedBytes(layout, stage));
    Ledger ledger;
    AddState(*slots, present, batch, staged, ledger);
    if (layout.ranks() > 1) ledger.Add(Use::kMessages, kCollectiveScratch);
    WalkMemory walk(parts, stage, present, ledger);
    walk.Run();
    AddAfterStep(*slots, present, batch, staged, ledger);
    ranks.push_back({.stage = stage,
                     .peak = ledger.peak(),
                     .most = ledger.most(),
                     .place = walk.NameOf(ledger.peak_place()),
                     .kept = walk.kept(),
                     .in_flight = std::min(passes, MaxInFlight(stages.plan.shape, stage))});
  }
  return ranks;
}

absl::StatusOr<int64_t> LeastMemory(PlanSpace& space, const PlanLayout& layout) {
  OSLER_RETURN_IF_ERROR(space.Check(layout));
  OSLER_ASSIGN_OR_RETURN(const SlotSizes* slots, space.Slots(layout));
  const StageSlots& stages = space.Stages(layout);
  int64_t least = 0;
  for (const int stage : ChooseStages(stages.plan, StageChoice::kWorst)) {
    OSLER_ASSIGN_OR_RETURN(const int64_t staged, space.StagedBytes(layout, stage));
    Ledger ledger;
    AddState(*slots, stages.slots[static_cast<size_t>(stage)], space.batch(), staged, ledger);
    least = std::max(least, Total(ledger.peak()));
  }
  return least + kProcessBytes;
}

const RankMemory& WorstRank(const std::vector<RankMemory>& ranks) {
  return *std::max_element(ranks.begin(), ranks.end(),
                           [](const auto& a, const auto& b) { return a.tensors() < b.tensors(); });
}

}  // namespace osler
