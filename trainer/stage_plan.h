// Which of a model's blocks each stage of a pipeline holds.
//
// The blocks, in order, are cut into stages × chunks runs of near-equal cost; a run is a virtual
// stage. Rank r of the pipeline axis holds chunk c = virtual stage c · stages + r (Narayanan et
// al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", 2021,
// §2.2; one chunk a rank is a plain pipeline). Layers need not divide. The embedding is on the
// first virtual stage, the final norm and the head on the last; the head's cost counts there.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/block.h"
#include "model/parameter_store.h"
#include "parallel/communicator.h"

namespace osler {

struct PipelineShape {
  int stages = 1;  // ranks of the pipeline axis
  int chunks = 1;  // of each rank ("interleave")
  int virtual_stages() const { return stages * chunks; }
  bool operator==(const PipelineShape&) const = default;
};

// A value; the same on every rank.
struct StagePlan {
  struct Range {
    int64_t begin = 0, end = 0;  // blocks
  };
  PipelineShape shape;
  std::vector<int64_t> begins;  // virtual stage v is blocks [begins[v], begins[v + 1])

  int VirtualStage(int rank, int chunk) const { return chunk * shape.stages + rank; }
  Range BlocksOf(int virtual_stage) const;
  // The virtual stage that holds a block.
  int StageOf(int64_t block) const;
};

// Multiply-adds of a token in a block's matrices; its lookup makes an embedding free.
std::vector<int64_t> BlockCosts(const Model& model, const ParameterStore& store);
int64_t HeadCost(const Model& model, const ParameterStore& store);

// Minimises the costliest virtual stage and, among such plans, the sum of squares. PRE: at least
// one block a virtual stage, as CheckLayout (model/layout.h) sees to; costs ≥ 0.
StagePlan PlanStages(std::span<const int64_t> block_costs, int64_t head_cost,
                     const PipelineShape& shape);

// One stage with every block.
StagePlan WholeModel(const Model& model);

// The slots that the chunks of a rank use, ascending: its blocks', and the head's on the last
// virtual stage. A tied head is the embedding's slot, which then stands on both ends.
std::vector<int64_t> SlotsOfStage(const Model& model, const StagePlan& plan, int rank);

// The two ends of the pipeline, where both hold a tied head, in the order of the pipeline; null on
// ranks in between, without a pipeline and without a tied head. Collective over the pipeline;
// throws c10::Error.
std::unique_ptr<Communicator> TiedGroup(const Model& model, Communicator& pipeline);

}  // namespace osler
