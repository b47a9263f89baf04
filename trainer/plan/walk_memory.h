// One step of one pipeline stage on a ledger: StagePass (trainer/stage_pass.h) with bytes in place
// of tensors. Private to trainer/plan/memory.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "trainer/pipeline_schedule.h"
#include "trainer/plan/block_memory.h"
#include "trainer/plan/ledger.h"
#include "trainer/plan/memory.h"
#include "trainer/plan/reduce_memory.h"
#include "trainer/plan/space.h"

namespace osler {

// What a walk is rehearsed with. All must outlive it.
struct WalkMemoryParts {
  const Model& model;
  const SlotSizes& slots;
  const StagePlan& stages;
  const MicroBatchSizes& sizes;
  const PlanLayout& layout;
  const PlanBatch& batch;
  int64_t micro_batches = 1;
};

class WalkMemory {
 public:
  // Places of the ledger besides those of blocks.
  static constexpr int64_t kReduction = -1, kNorm = -2, kCheckpoint = -3;

  // `present`: the slots of the stage.
  WalkMemory(const WalkMemoryParts& parts, int stage, const std::vector<int64_t>& present,
             Ledger& ledger);
  void Run();
  // The activations that are kept of one micro-batch.
  int64_t kept() const { return most_kept_; }
  std::string NameOf(int64_t place) const;  // "layer.3 backward"

 private:
  // The value that flows from block to block.
  struct Flow {
    Use use = Use::kBlock;
    int64_t bytes = 0;
    bool is_kept = false;  // by the block that made it
  };
  struct InFlight {
    int64_t actions_left = 0;
    std::vector<int64_t> kept;  // bytes, by block
    int64_t all_kept = 0;
  };
  struct Visit {
    int64_t block = 0;  // past the last: the head
    PipelineAction::Kind kind = PipelineAction::Kind::kForward;
  };

  void ListVisits();
  const std::vector<int64_t>& SlotsOf(int64_t block) const;
  void Enter();  // the next visit: gathers its parameters and those of the one after
  InFlight& FlightOf(int64_t micro_batch);
  bool Receives(const PipelineAction& action) const;
  void Expect(const PipelineAction& action);
  void Send(int64_t bytes);
  void Forward(const PipelineAction& action);
  void ForwardBlock(int64_t block, InFlight& flight, Flow& x);
  void Head(int64_t micro_batch);
  void Backward(const PipelineAction& action);
  void BackwardBlock(int64_t block, InFlight& flight);
  void BlockDone(int64_t block, int64_t micro_batch);
  void Accumulate(int64_t slot);

  StagePlan::Range BlocksOf(const PipelineAction& action) const;
  bool IsLastStage(const PipelineAction& action) const;
  bool recomputes() const { return parts_.layout.recompute != RecomputeMode::kNone; }
  bool remembers() const { return parts_.layout.recompute == RecomputeMode::kSelective; }
  const BlockMemory& Memory(int64_t block) const {
    return parts_.sizes.blocks[static_cast<size_t>(block)];
  }
  const BlockSlots& Sizes(int64_t block) const {
    return parts_.slots.blocks[static_cast<size_t>(block)];
  }

  const WalkMemoryParts& parts_;
  const int stage_;
  Ledger& ledger_;
  const std::vector<PipelineAction> actions_;
  const std::vector<int64_t> head_slots_;
  const int64_t blocks_;
  int64_t lowest_ = 0;    // the first block with something to train
  int64_t boundary_ = 0;  // bytes of a value between blocks
  bool block_holds_head_ = false;
  std::vector<Visit> visits_;
  size_t visit_ = 0;
  std::map<int64_t, InFlight> in_flight_;
  std::map<int64_t, int64_t> accumulators_;  // ZeRO 2, 3: whole sums of a slot, until its scatter
  int64_t scattering_ = 0, sent_ = 0, most_kept_ = 0;
  ReduceMemory reduce_;
};

}  // namespace osler
