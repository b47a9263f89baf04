// Packs joined into what the blocks of one forward and backward pass take.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "data/loader.h"
#include "model/block.h"
#include "parallel/context_attention.h"

namespace osler {

// Packs joined into one run; documents never see each other. The run is filled up with rows that
// see nothing and have no target: they add nothing to loss and gradients.
struct MicroBatch {
  SequenceInputs inputs;
  at::Tensor targets_T;  // int64: the id that follows each position in its document, kIgnore where
                         // none counts
  int64_t tokens = 0;    // of the packs that are this context rank's
  int64_t target_tokens = 0;  // the same
};

// Over which ranks a micro-batch lies; not owned, null: size 1.
struct MicroBatchLayout {
  Communicator* tensor = nullptr;
  Communicator* context = nullptr;
  ContextMethod context_method = ContextMethod::kAuto;
  int64_t mlp_chunk_tokens = 0;  // as in SequenceInputs
  at::Device device = at::kCPU;  // of the inputs; targets stay on the CPU
};

// Rows come in multiples of 64 on each tensor rank, and there are some even without a pack: oneDNN
// compiles its bf16 products anew for every length, and packs are a few tokens short of full, each
// another few. With a context axis the tokens of the packs are split over its ranks by their cost
// (parallel/context_split.h); all its ranks are given the same packs. Throws c10::Error for an id
// outside the vocabulary.
MicroBatch MakeMicroBatch(const Model& model, std::span<const Pack> packs,
                          const MicroBatchLayout& layout = {});

// The rows that so many tokens of a context rank are filled up to.
int64_t RowsFor(int64_t tokens, int tensor_ranks);

// The loss targets of a pack: labels at positions ≥ 1 of their document that are not kIgnore.
int64_t CountTargets(const Pack& pack);

}  // namespace osler
