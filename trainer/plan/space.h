// What the layouts of one run have in common, made once each: comparing thousands of them takes a
// moment. Everything comes from the trainer's own tables. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/plan/block_memory.h"
#include "trainer/plan/memory.h"

namespace osler {

// Of one block, or of the head. Elements are of whole, padded slices.
struct BlockSlots {
  int64_t flat = 0, trained_flat = 0;
  std::vector<int64_t> trained;
};

// What a rank holds of each parameter, by slot.
struct SlotSizes {
  std::vector<int64_t> pieces;  // elements
  std::vector<int> copies;      // tensor ranks with the same slice
  std::vector<bool> trained;
  int64_t shard = 1;  // ranks that pieces are cut for
  bool cuts_gradients = false, cuts_parameters = false;
  std::vector<BlockSlots> blocks;  // of the model, then the head

  int64_t flat(int64_t slot) const { return pieces[static_cast<size_t>(slot)] * shard; }
};

struct StageSlots {
  StagePlan plan;
  std::vector<std::vector<int64_t>> slots;    // by stage, ascending
  std::vector<std::vector<int64_t>> written;  // of them, those that no stage before has
};

// Of one micro-batch on one rank.
struct MicroBatchSizes {
  std::vector<BlockMemory> blocks;
  int64_t input_bytes = 0;  // ids, positions, masks, tables
  int64_t head_bytes = 0;   // made and freed while the head runs, with its gradient
};

class PlanSpace {
 public:
  // Both must outlive it.
  PlanSpace(const PlanModel& model, const PlanBatch& batch) : model_(model), batch_(batch) {}

  const PlanModel& model() const { return model_; }
  const PlanBatch& batch() const { return batch_; }
  // Config error: CheckLayout.
  absl::Status Check(const PlanLayout& layout) const;
  // PRE of these: Check is OK.
  absl::StatusOr<const SlotSizes*> Slots(const PlanLayout& layout);
  const StageSlots& Stages(const PlanLayout& layout);
  absl::StatusOr<const MicroBatchSizes*> MicroBatch(const PlanLayout& layout);
  // The most that one of a stage's ranks copies for a checkpoint.
  absl::StatusOr<int64_t> StagedBytes(const PlanLayout& layout, int stage);

 private:
  const PlanModel& model_;
  const PlanBatch& batch_;
  std::map<std::tuple<int, int, int>, SlotSizes> slots_;    // by tensor, shard, ZeRO level
  std::map<std::pair<int, int>, StageSlots> stages_;        // by stages, chunks
  std::map<std::pair<int, int>, MicroBatchSizes> batches_;  // by context, tensor
  // By tensor, shard, stages, chunks, ranks that share the writing, stage.
  std::map<std::array<int, 6>, int64_t> staged_;
};

}  // namespace osler
