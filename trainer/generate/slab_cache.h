// Keys and values of the sequences that are being generated: one slab a layer, a stretch of it for
// each sequence (its slot).
//
// A global layer keeps every token of a sequence; a layer with a window of W keeps a ring of the
// last W, token p at place p mod W. Room for `capacity` tokens a slot grows by doubling, so a model
// with G global and L local layers of K key heads of width D holds at most
//   2 · slots · K · D · (G · capacity + L · min(W, capacity)) values
// with capacity less than twice the longest sequence's tokens; while it grows, one layer more.
//
// A pass is either Prefill, the tokens of new prompts as documents of one packed pass, or Decode,
// one token of each running sequence, where row b sees the interval of its slot.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/block.h"

namespace osler {

// Not thread-safe. The model must outlive it.
class SlabCache : public KeyValueCache {
 public:
  SlabCache(const Model& model, int64_t slots) : model_(model), slots_(slots) {}

  // A stretch of a prompt. Its keys and values go to each of `slots`, whose sequences share it.
  struct Segment {
    std::vector<int64_t> slots;  // not empty
    int64_t start = 0;           // position of the first token; slots hold the ones before it
    std::vector<int32_t> tokens;
  };
  // Inputs of a pass over the segments' tokens in a row. PRE: a segment with start > 0 is the only
  // one.
  SequenceInputs Prefill(std::span<const Segment> segments);

  struct Row {
    int64_t slot;
    int64_t position;  // of the token: how many its slot holds
    int32_t token;
  };
  // PRE: slots ascend.
  SequenceInputs Decode(std::span<const Row> rows);

  KeysValues Extend(int64_t layer, size_t kind, const KeysValues& added) override;

  int64_t capacity() const { return capacity_; }

 private:
  // What the pass under way does with the layers of one kind; places are rows of the slab.
  struct KindPass {
    at::Tensor history_N;  // places whose tokens the pass's own follow; undefined: none
    at::Tensor source_N;   // the tokens of the pass that are kept; undefined: all
    at::Tensor target_N;   // where they go
  };
  struct Layer {
    size_t kind = 0;
    KeysValues slab;  // [slots · Entries(kind), K, D]; undefined until first used
  };

  int64_t Window(size_t kind) const;   // the largest integer for a global layer
  int64_t Entries(size_t kind) const;  // places a slot
  int64_t Place(size_t kind, int64_t slot, int64_t position) const;
  void Reserve(int64_t tokens);
  KindPass PlanPrefill(size_t kind, std::span<const Segment> segments) const;
  MaskIntervals PrefillMask(size_t kind, std::span<const Segment> segments) const;
  MaskIntervals DecodeMask(size_t kind, std::span<const Row> rows) const;

  const Model& model_;
  int64_t slots_;
  int64_t capacity_ = 0;
  bool attend_to_slab_ = false;  // in Decode
  std::vector<KindPass> passes_;
  std::vector<Layer> layers_;
};

}  // namespace osler
