// A model is a list of blocks that the trainer walks. A block is pure maths: what it needs is
// handed to it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/interval_attention.h"
#include "kernels/rope.h"
#include "model/key_value_cache.h"
#include "model/parameter_store.h"
#include "parallel/communicator.h"

namespace osler {

// What all blocks of one micro-batch share: T packed tokens of one or more documents. Constant,
// never differentiated. Masks and RoPE tables are one entry a layer kind of the model (Gemma 3: 0
// global, 1 local), made by Model::PrepareInputs.
struct SequenceInputs {
  at::Tensor tokens_T;     // int64
  at::Tensor positions_T;  // int64, restart at every document
  std::vector<MaskIntervals> masks;
  std::vector<RopeTables> ropes;
  KeyValueCache* cache = nullptr;  // not owned; null: a token sees this pass's tokens only
  Communicator* tensor = nullptr;  // of the tensor axis, not owned; null: size 1
  int64_t mlp_chunk_tokens = 0;    // GatedMlp's
};

// What flows from block to block: with a tensor axis, this rank's T / ranks rows, in rank order.
// x_TD is undefined before the first block; it is the only differentiated value.
struct Activations {
  at::Tensor x_TD;
};

// The values of a block's parameters in the order of Block::slots(). The walk hands out detached
// leaves, so that gradients are taken per block with autograd::grad.
using SlotView = std::vector<at::Tensor>;

// Immutable and thread-safe.
class Block {
 public:
  virtual ~Block() = default;
  // Store indices of the parameters Forward takes, in its order.
  virtual const std::vector<int64_t>& slots() const = 0;
  virtual Activations Forward(const Activations& input, const SlotView& parameters,
                              const SequenceInputs& inputs) const = 0;
  virtual std::string name() const = 0;  // "embedding", "layer.3", "final_norm"
};

// A family's model: its blocks, and the slot whose matrix [V, D] turns the last block's output into
// logits. A tied head is simply the embedding's slot.
struct Model {
  std::vector<std::unique_ptr<Block>> blocks;
  int64_t head_slot = -1;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t max_positions = 0;
  int64_t head_dim = 0;
  // The window of each layer kind (nullopt: global) and its RoPE.
  struct LayerKind {
    std::optional<int64_t> window;
    RopeOptions rope;
  };
  std::vector<LayerKind> layer_kinds;

  // Masks and tables for packed documents; tokens as they stand in the pack(s), doc_starts
  // ascending from 0.
  SequenceInputs PrepareInputs(const std::vector<int32_t>& tokens,
                               const std::vector<int32_t>& doc_starts) const;
};

}  // namespace osler
