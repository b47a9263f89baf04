// The batch under way inside Generator::Generate.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "model/block.h"
#include "model/parameter_store.h"
#include "trainer/generate/generator.h"
#include "trainer/generate/slab_cache.h"
#include "trainer/walk.h"

namespace osler {

// Not thread-safe; what the constructor is given must outlive it. Throws c10::Error.
class GenerationBatch {
 public:
  GenerationBatch(const Model& model, ParameterStore& store,
                  std::span<const std::vector<int32_t>> prompts, const GenerationOptions& options,
                  GenerationListener& listener);

  // Lets waiting sequences enter free slots, up to the first token of each; then one token for
  // every running sequence.
  absl::Status Step();
  bool unfinished() const { return running_ > 0 || next_.prompt < prompts_.size(); }
  const GenerationStats& stats() const { return stats_; }

 private:
  struct Sequence {
    SequenceId id;
    Generated generated;
  };
  // Sequences of one prompt that enter together.
  struct Entry {
    size_t prompt;
    std::vector<int64_t> slots;
  };

  std::vector<Entry> Admit();
  absl::Status Prefill(std::span<const Entry> entries);
  absl::Status PrefillLong(const Entry& entry);
  absl::Status Decode();
  // Logits [R, V] in fp64 of the rows given of a pass's last hidden states.
  at::Tensor Logits(const SequenceInputs& inputs, const std::vector<int64_t>& rows);
  // The token after `made` new ones. Its random number depends on the seed, the sequence and
  // `made`.
  int32_t Choose(const SequenceId& id, int64_t made, std::span<const double> logits) const;
  // The next token of the sequence in `slot`; the slot is free again when that was the last.
  absl::Status Advance(int64_t slot, std::span<const double> logits);
  int64_t Limit(size_t prompt) const;  // new tokens

  const Model& model_;
  ParameterStore& store_;
  std::span<const std::vector<int32_t>> prompts_;
  const GenerationOptions& options_;
  GenerationListener& listener_;
  Walk walk_;
  std::vector<std::optional<Sequence>> slots_;
  SlabCache cache_;
  SequenceId next_{0, 0};
  int64_t running_ = 0;
  GenerationStats stats_;
};

}  // namespace osler
