// The memory that a rank needs for training, predicted from a configuration and the model's
// config.json: the walk of one step is rehearsed, with the trainer's own schedule, stages, slots
// and buckets, and every tensor's bytes are counted instead of being held. docs/plan.md has the
// assumptions. Nothing is allocated; thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/schema/train.pb.h"
#include "model/registry.h"
#include "parallel/mesh.h"
#include "trainer/place_model.h"
#include "trainer/plan/ledger.h"
#include "trainer/step.h"

namespace osler {

// What a process of `osler train` has besides tensors, in private memory: libraries' data, threads,
// work space of matrix products. Measured (docs/plan.md); code and mapped files are not in it.
inline constexpr int64_t kProcessBytes = int64_t{76} << 20;

// Pieces that a collective receives and combines, the next while it combines one.
inline constexpr int64_t kCollectiveScratch = int64_t{4} << 20;

// A model as a run trains it, whatever its layout.
struct PlanModel {
  ModelSpec spec;
  ParameterStore store;  // slots and what is trained of them; not laid out
  Model model;
};
// Config errors as `osler train` has them.
absl::StatusOr<PlanModel> MakePlanModel(const config::Train& config, ModelSpec spec);

// In the order of the work that they add.
inline constexpr std::array kRecomputeModes{RecomputeMode::kNone, RecomputeMode::kSelective,
                                            RecomputeMode::kFull};

// How a run is laid out.
struct PlanLayout {
  MeshShape mesh;
  PlaceOptions place;  // ZeRO level, chunks of a stage
  RecomputeMode recompute = RecomputeMode::kNone;

  int ranks() const;
  int readers() const { return mesh.size(Axis::kData) * mesh.size(Axis::kShard); }
};
PlanLayout PlanLayoutOf(const config::Train& config, const MeshShape& mesh);

// When a rank holds the copy that a checkpoint is written from (checkpoint.async): never, once the
// steps are over, or all the time.
enum class StagedCopy { kNever, kAtTheEnd, kKept };
StagedCopy StagedCopyOf(const config::Train& config);

// What all layouts have in common.
struct PlanBatch {
  at::ScalarType dtype = at::kFloat;
  int64_t sequence_length = 512;
  int64_t global_batch = 1;
  StagedCopy staged = StagedCopy::kNever;
  StepOptions step;

  int64_t element_bytes() const { return static_cast<int64_t>(c10::elementSize(dtype)); }
  int64_t sum_bytes() const { return dtype == at::kDouble ? 8 : 4; }
  // Micro-batches of a reader in a step.
  int64_t passes(int64_t readers) const;
};
PlanBatch PlanBatchOf(const config::Train& config);

// Of the ranks of one pipeline stage; the others of the stage have the same or a few rows less.
struct RankMemory {
  int stage = 0;
  UseBytes peak{};        // by use, at the moment of the largest total
  UseBytes most{};        // the most of each use by itself
  std::string place;      // what was at work then: "layer.3 backward"
  int64_t kept = 0;       // activations of one micro-batch
  int64_t in_flight = 1;  // micro-batches whose activations are kept at once

  int64_t tensors() const { return Total(peak); }
  int64_t total() const { return tensors() + kProcessBytes; }
};

class PlanSpace;
// For the configured layout one a stage, in their order; to compare layouts, the stages that can
// be the worst: the first of each number of blocks, and the last. Config error: CheckLayout.
enum class StageChoice { kAll, kWorst };
absl::StatusOr<std::vector<RankMemory>> PredictMemory(PlanSpace& space, const PlanLayout& layout,
                                                      StageChoice choice = StageChoice::kAll);
// What the worst rank holds all the time: it needs no less, and this is soon known.
absl::StatusOr<int64_t> LeastMemory(PlanSpace& space, const PlanLayout& layout);
// The one with the largest total.
const RankMemory& WorstRank(const std::vector<RankMemory>& ranks);

}  // namespace osler
