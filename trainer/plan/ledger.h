// Bytes that a rank holds, by what they are for, and how many they were when they were most.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string_view>

namespace osler {

enum class Use {
  kParameters,   // this rank's own: whole slices, or pieces under ZeRO 3
  kGradients,    // sums, likewise from ZeRO 2 on
  kOptimizer,    // master weights and moments
  kActivations,  // kept from a block's forward pass to its backward pass
  kBlock,        // made and freed while one block runs
  kLogits,       // the head: a chunk of logits and what belongs to it
  kGathered,     // ZeRO 3: parameters of the block at work and of the next
  kReduction,    // gradients on their way to their sums
  kMessages,     // between pipeline stages, and scratch of collectives
  kStaged,       // the copy that a checkpoint is written from
  kInputs,       // ids, positions, masks, RoPE tables of the micro-batches in flight
};
inline constexpr std::array<std::string_view, 11> kUseNames{
    "parameters", "gradients", "optimizer", "activations", "block", "logits",
    "gathered",   "reduction", "messages",  "staged",      "inputs"};
using UseBytes = std::array<int64_t, kUseNames.size()>;

inline int64_t Total(const UseBytes& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

class Ledger {
 public:
  // What is at work, a number of the caller's.
  void SetPlace(int64_t place) { place_ = place; }
  void Add(Use use, int64_t bytes) {
    int64_t& live = live_[static_cast<size_t>(use)];
    live += bytes;
    total_ += bytes;
    int64_t& most = most_[static_cast<size_t>(use)];
    if (live > most) most = live;
    if (total_ <= peak_total_) return;
    peak_total_ = total_;
    peak_ = live_;
    peak_place_ = place_;
  }
  void Remove(Use use, int64_t bytes) {
    live_[static_cast<size_t>(use)] -= bytes;
    total_ -= bytes;
  }
  void Pass(Use use, int64_t bytes) {  // added and removed again
    Add(use, bytes);
    Remove(use, bytes);
  }
  int64_t live(Use use) const { return live_[static_cast<size_t>(use)]; }
  const UseBytes& peak() const { return peak_; }  // by use, at the moment of the largest total
  int64_t peak_place() const { return peak_place_; }
  const UseBytes& most() const { return most_; }  // of each use by itself

 private:
  UseBytes live_{}, peak_{}, most_{};
  int64_t total_ = 0, peak_total_ = 0;
  int64_t place_ = 0, peak_place_ = 0;
};

}  // namespace osler
