// From the gradients of this rank's micro-batches to the global sum of each piece.
//
// A step is Begin, then for every micro-batch Add (or Accumulator) for each slot and BlockDone for
// each block, then Finish. Below ZeRO 2 gradients are summed whole and reduced once a step: along
// shard to pieces, then the pieces along tensor (over the ranks that hold the same slice), the tied
// embedding's group, context and data; in buckets, and those that are complete are under way while
// the last micro-batch's backward pass goes on. From ZeRO 2 on every BlockDone sends the block's
// gradients to their pieces while the next block computes; the rest is the same.
//
// What travels is the accumulator's dtype, or bf16 (rounded when sent, summed in fp32). The order
// of all sums is fixed, so the bits do not depend on timing.
//
// All ranks of the mesh make the same Begin, Finish and GlobalNorm calls; ranks of one shard group
// also the same BlockDone calls. A slot that a rank never touched counts as zero. Throws c10::Error
// (c10::DistError for communication). Not thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "model/parameter_store.h"
#include "parallel/mesh.h"

namespace osler {

// So many buckets are reduced at once: each may hold a copy of its gradients.
inline constexpr size_t kBucketsInFlight = 3;
// Elements whose squares are summed at once: in fp64, which copies them.
inline constexpr int64_t kNormChunk = int64_t{1} << 20;

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
  // Store and mesh must outlive it. PRE: the store holds values, and slots are marked trainable and
  // stay so. Collective over the tensor axis.
  GradientReducer(ParameterStore& store, Mesh& mesh, const ReduceOptions& options);

  // Zeroes all sums. BlockDone is going to be called `micro_batches` times for every slot.
  void Begin(int64_t micro_batches);
  // Adds a micro-batch's gradient of a slot: local's shape, dense or an embedding's sparse rows.
  // One that is moved in, and that nobody else holds, saves a copy.
  void Add(int64_t slot, at::Tensor gradient);
  // What a kernel adds to in place of Add: local's shape, the dtype of sums; valid until BlockDone.
  at::Tensor Accumulator(int64_t slot);
  // This micro-batch's gradients of these slots are all in. Slots that are not trained are skipped.
  void BlockDone(std::span<const int64_t> slots);
  // After the last micro-batch: every trained slot's gradient_piece is the global sum.
  void Finish();
  // The 2-norm of all gradients of the model after Finish, each counted once, summed in fp64.
  // Collective over the mesh; the same bits on every rank.
  double GlobalNorm() const;

 private:
  // Slots that are reduced together, in the order in which backward passes finish them.
  struct Bucket {
    std::vector<int64_t> slots;
    std::vector<Communicator*> sums;  // the groups to sum pieces over, in this order
    size_t next = 0;                  // of sums
    Handle handle;                    // of what is under way
    std::vector<at::Tensor> scattered;
    at::Tensor joined;  // the pieces side by side, or the only one
  };
  // A block's gradients on their way to their pieces (ZeRO 2 and 3).
  struct Scatter {
    std::vector<int64_t> slots;
    std::vector<at::Tensor> flats;
    Handle handle;
  };

  bool Reduces(int64_t slot) const;
  Communicator* GroupOfCopies(int64_t slot);
  std::vector<Communicator*> SumsOf(int64_t slot);
  void MakeBuckets();
  at::ScalarType SentType(int64_t slot) const;
  std::string_view NameOf(const Bucket& bucket) const;
  at::Tensor& WholeSum(int64_t slot);
  void StartScatter(std::span<const int64_t> slots);
  void FinishScatter();
  void Count(int64_t slot) { ++done_[static_cast<size_t>(slot)]; }
  bool Complete(const Bucket& bucket) const;
  void LaunchComplete();
  void Launch(Bucket& bucket);
  bool Advance(Bucket& bucket);
  void StartSum(Bucket& bucket);
  void TakeSum(Bucket& bucket);

  ParameterStore& store_;
  Mesh& mesh_;
  ReduceOptions options_;
  std::map<int, std::unique_ptr<Communicator>> copy_groups_;  // by the number of copies
  std::vector<Bucket> buckets_;  // launched in this order, the same on all ranks of every group
  size_t launched_ = 0;          // buckets of this step
  size_t settled_ = 0;           // the first of them that have their sums
  int64_t micro_batches_ = 0;
  std::vector<int64_t> done_;      // by slot: micro-batches whose gradients are in
  std::vector<at::Tensor> whole_;  // by slot, flat: a micro-batch's sums where gradients are cut
  Scatter scatter_;                // under way
};

}  // namespace osler
