// Which parameters have their whole slices in memory.
//
// Where parameters are cut along the shard axis (ZeRO 3) a block's slices are gathered before the
// block runs and freed after it; elsewhere they are always there, and only the gathers after an
// optimizer step remain (ZeRO 1, 2). A slot's `local` stays one tensor: gathering puts memory under
// its storage and freeing takes it away, so that what autograd saved for a backward pass holds no
// memory in between and is right again when the slot is acquired. Its version does not change.
//
// All ranks of the shard axis make the same calls in the same order, exceptions (c10::DistError)
// apart. Not thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "model/parameter_store.h"
#include "parallel/communicator.h"

namespace osler {

class Residency {
 public:
  // Both must outlive it. The store's layout is of `shard`'s rank and size.
  Residency(ParameterStore& store, Communicator& shard);
  ~Residency();

  // Starts gathering the slots that are neither in memory nor under way, in one message. They stay
  // in memory until acquired and released.
  void Prefetch(std::span<const int64_t> slots);
  // Waits until all are in memory, gathering what is missing, and counts one use of each.
  void Acquire(std::span<const int64_t> slots);
  // One use less of each; without uses the memory goes.
  void Release(std::span<const int64_t> slots);

  // The pieces have new values: frees what is gathered (ZeRO 3), or starts gathering every
  // trainable slot, which Acquire waits for (ZeRO 1, 2). PRE: nothing is in use.
  void PiecesChanged();
  // Waits for everything that was started.
  void Settle();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace osler
