// Which parameters have their whole slices in memory.
//
// Where parameters are cut along the shard axis (ZeRO 3) a block's slices are gathered before the
// block runs and freed after it; elsewhere they are always there, and only the gathers after an
// optimizer step remain (ZeRO 1, 2). A slot's `local` stays one tensor: gathering puts memory under
// its storage and freeing takes it away, so that what autograd saved for a backward pass holds no
// memory in between and is right again when the slot is acquired. Its version does not change.
//
// All ranks of the shard axis make the same calls in the same order. Errors of communication are
// c10::DistError; after one the object is of no further use. Not thread-safe.
#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "model/parameter_store.h"
#include "parallel/communicator.h"

namespace osler {

class Residency {
 public:
  // Both must outlive it; the store's layout is of `shard`'s rank and size.
  Residency(ParameterStore& store, Communicator& shard);

  // Starts gathering the slots that are neither in memory nor under way, in one message. They stay
  // until they are acquired and released.
  void Prefetch(std::span<const int64_t> slots);
  // Waits until all are in memory, gathering what is missing, and counts one use of each.
  void Acquire(std::span<const int64_t> slots);
  // One use less of each; without uses their memory goes.
  void Release(std::span<const int64_t> slots);

  // The pieces have new values. Frees what is gathered (ZeRO 3), or starts gathering every
  // trainable slot, which Acquire waits for (ZeRO 1, 2). PRE: nothing is in use.
  void PiecesChanged();
  // Waits for everything that was started.
  void Settle();

 private:
  struct Slot {
    int64_t uses = 0;
    bool in_memory = false;             // or on its way
    bool expected = false;              // prefetched and not acquired since
    std::shared_ptr<Handle> gathering;  // shared by the slots of one message; null: none
  };
  Slot& slot(int64_t index) { return slots_[static_cast<size_t>(index)]; }
  void Gather(const std::vector<int64_t>& slots);
  void Wait(Slot& slot);
  void GiveMemory(int64_t index);
  void TakeMemory(int64_t index);

  ParameterStore& store_;
  Communicator& shard_;
  std::vector<Slot> slots_;
  // Memory of the slots freed last, by size: the next block's are often of the same sizes, and
  // memory that is asked from the system anew costs a fault for every page.
  std::vector<std::pair<size_t, c10::DataPtr>> spare_;
};

}  // namespace osler
