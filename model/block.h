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

namespace osler {

class Communicator;
class ContextAttention;

// What all blocks of one micro-batch share: T packed tokens of one or more documents, those of this
// context rank. Constant, never differentiated. Masks and RoPE tables are one entry a layer kind of
// the model (Gemma 3: 0 global, 1 local), made by Model::PrepareInputs.
struct SequenceInputs {
  at::Tensor tokens_T;     // int64
  at::Tensor positions_T;  // int64, restart at every document
  std::vector<MaskIntervals> masks;
  std::vector<RopeTables> ropes;
  KeyValueCache* cache = nullptr;  // not owned; null: a token sees this pass's tokens only
  Communicator* tensor = nullptr;  // not owned; the tensor axis, null: size 1
  // Attention over the keys of all context ranks, in place of masks, which are then empty; null:
  // all keys are here.
  std::shared_ptr<const ContextAttention> context;
  int64_t mlp_chunk_tokens = 0;  // rows of an MLP's inner activations held at once; 0: all
};

// What flows from block to block. x_TD is undefined before the first block; it is the only
// differentiated value. With a tensor axis it has T / size rows, one contiguous part on each rank.
struct Activations {
  at::Tensor x_TD;
};

// The values of a block's parameters in the order of Block::slots(). The walk hands out detached
// leaves, so that gradients are taken per block with autograd::grad.
using SlotView = std::vector<at::Tensor>;

// What a recomputation need not make again: a forward pass with an empty memo fills it, one with a
// filled memo uses it and gives the same bits.
struct BlockMemo {
  AttentionOutput attention;
};

// Immutable and thread-safe.
class Block {
 public:
  virtual ~Block() = default;
  // Store indices of the parameters Forward takes, in its order.
  virtual const std::vector<int64_t>& slots() const = 0;
  // `memo` null: everything is computed.
  virtual Activations Forward(const Activations& input, const SlotView& parameters,
                              const SequenceInputs& inputs, BlockMemo* memo = nullptr) const = 0;
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
  // The window of each layer kind (nullopt: global), its RoPE, and how many layers are of it.
  struct LayerKind {
    std::optional<int64_t> window;
    RopeOptions rope;
    int64_t layers = 0;
  };
  std::vector<LayerKind> layer_kinds;
  // What a split of tokens over ranks balances, in multiply-adds of one (query, key) pair of a
  // layer's attention: a token in the layers' matrices, and in the head where it has a target.
  int64_t token_cost = 0, head_cost = 0;

  // For tokens as they stand in the pack(s), doc_starts ascending from 0: PrepareRows of all of
  // them, and DocumentMasks. Throws c10::Error for an id outside the vocabulary.
  SequenceInputs PrepareInputs(const std::vector<int32_t>& tokens,
                               const std::vector<int32_t>& doc_starts) const;
  // Tokens, positions in their documents and tables, on `device`; no masks.
  SequenceInputs PrepareRows(const std::vector<int32_t>& tokens,
                             const std::vector<int64_t>& positions,
                             at::Device device = at::kCPU) const;
  // Causal inside each document, one a layer kind.
  std::vector<MaskIntervals> DocumentMasks(const std::vector<int32_t>& doc_starts,
                                           int64_t length) const;
};

// Each token's place in its document.
std::vector<int64_t> DocumentPositions(const std::vector<int32_t>& doc_starts, int64_t length);

}  // namespace osler
