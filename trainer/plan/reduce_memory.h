// What GradientReducer holds besides the sums themselves while buckets are under way, rehearsed
// with its own rules (trainer/gradient_reduce.h).
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "trainer/plan/ledger.h"
#include "trainer/plan/memory.h"
#include "trainer/plan/space.h"

namespace osler {

class ReduceMemory {
 public:
  // `present`: the slots of the stage, ascending; `tied_slot`: the one that both ends of a pipeline
  // hold, or −1. All must outlive it.
  ReduceMemory(const SlotSizes& sizes, const std::vector<int64_t>& present,
               const PlanLayout& layout, const PlanBatch& batch, int64_t tied_slot, Ledger& ledger);
  // The gradients of these slots are in for good.
  void Done(const std::vector<int64_t>& slots);
  void Finish();

 private:
  struct Bucket {
    std::vector<int64_t> slots;
    int64_t groups = 0;  // that pieces are summed over, one after the other
    int64_t next = 0;
    int64_t scattered = 0, joined = 0;  // bytes: copies of what is scattered, and of its pieces
    bool holds_joined = false;
    bool settled() const { return scattered == 0 && next == groups && !holds_joined; }
  };
  int64_t GroupsOf(int64_t slot) const;
  void MakeBuckets(const std::vector<int64_t>& present);
  bool scatters() const { return sizes_.shard > 1 && !sizes_.cuts_gradients; }
  void SizeCopies(Bucket& bucket) const;
  bool Complete(const Bucket& bucket) const;
  void Launch(Bucket& bucket);
  bool Advance(Bucket& bucket);
  void StartSum(Bucket& bucket);

  const SlotSizes& sizes_;
  const PlanLayout& layout_;
  const int64_t tied_slot_, gradient_bytes_, sent_bytes_;  // of an element
  Ledger& ledger_;
  std::vector<Bucket> buckets_;
  size_t launched_ = 0, settled_ = 0;  // buckets; of those launched, the first that need no more
  std::vector<bool> done_;
};

}  // namespace osler
