// From the gradients of this rank's micro-batches to the global sum of each piece.
//
// A step is Begin, then for every micro-batch Add (or Accumulator) for each slot and BlockDone for
// each block, then Finish. Below ZeRO 2 gradients are summed whole, and reduced once a step: along
// shard to pieces, then the pieces along tensor (the ranks that hold the same slice), the tied
// embedding's group, context and data. In buckets; those that are complete are under way while the
// last micro-batch's backward pass goes on. From ZeRO 2 on every BlockDone sends the block's
// gradients to their pieces while the next block computes.
//
// What travels is the accumulator's dtype, or bf16 (rounded when sent, summed in fp32). The order
// of all sums is fixed, so the bits do not depend on timing.
//
// All ranks of the mesh make the same Begin, Finish and GlobalNorm calls; ranks of one shard group
// the same BlockDone calls. A slot that a rank never touched counts as zero. Throws c10::Error
// (c10::DistError for communication). Not thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>

#include "model/parameter_store.h"
#include "parallel/mesh.h"

namespace osler {

// Every trainable slot's gradient becomes the sum over `comm`'s ranks.
void AllReduceGradients(ParameterStore& store, Communicator& comm);

enum class ReductionType { kAccumulator, kBf16 };

struct ReduceOptions {
  ReductionType type = ReductionType::kAccumulator;
  int64_t bucket_bytes = int64_t{32} << 20;
  // Where both ends of the pipeline hold the tied embedding: the ranks with the same slice of it,
  // in the order of the pipeline, and its slot. Null: there is one copy. Not owned.
  Communicator* tied_group = nullptr;
  int64_t tied_slot = -1;
};

class GradientReducer {
 public:
  // Store and mesh must outlive it; slots are marked trainable by now and stay so. Collective over
  // the tensor axis.
  GradientReducer(ParameterStore& store, Mesh& mesh, const ReduceOptions& options);
  ~GradientReducer();

  // Zeroes all sums. BlockDone is going to be called `micro_batches` times for every slot.
  void Begin(int64_t micro_batches);
  // Adds a micro-batch's gradient of a slot: local's shape, dense or an embedding's sparse rows.
  // One that nobody else holds may be used as a buffer.
  void Add(int64_t slot, const at::Tensor& gradient);
  // What a kernel adds to in place of Add: local's shape, the dtype of sums; valid until BlockDone.
  at::Tensor Accumulator(int64_t slot);
  // This micro-batch's gradients of these slots are all in. Slots that are not trained are skipped.
  void BlockDone(std::span<const int64_t> slots);
  // After the last micro-batch: every trained slot's gradient_piece is the global sum.
  void Finish();
  // The 2-norm of all gradients of the model after Finish, each counted once, summed in fp64.
  // Collective over the mesh; the same bits on every rank.
  double GlobalNorm();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace osler
