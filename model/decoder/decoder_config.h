// A decoder-only language model as data: everything in which Gemma 3, Llama 3, Qwen2.5 and Qwen3
// differ. A family is a function that reads its config.json into this; decoder.h makes the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/gate_kind.h"
#include "kernels/norm_style.h"
#include "model/block.h"

namespace osler {

// What a parameter does in a layer. The order is that of the layer's slots.
enum class LayerRole {
  kQuery,
  kKey,
  kValue,
  kOutput,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kQueryNorm,  // over each head, before RoPE
  kKeyNorm,
  kGate,
  kUp,
  kDown,
  kInputNorm,
  kPostAttentionNorm,    // of attention's output, before it is added
  kPreFeedForwardNorm,   // of the MLP's input
  kPostFeedForwardNorm,  // of the MLP's output, before it is added
};

// The Hugging Face name of each role after "model.layers.N.". A role that is not here is a step
// that the family does not take: no bias, no norm.
using LayerNames = std::map<LayerRole, std::string>;

// How checkpoints spell the parameters.
struct CheckpointNames {
  // What may stand for the "model." of a parameter's name; a longer spelling before one it starts
  // with.
  std::vector<std::string> prefixes = {"model."};
  std::vector<std::string> heads = {"lm_head.weight"};
  std::vector<std::string> ignored;  // beginnings of tensors that are no part of the text model
};

struct DecoderConfig {
  std::string family;  // its model_type: "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  bool tied_head = false;
  double initializer_range = 0.02;

  LayerNames layer_names;
  CheckpointNames checkpoint_names;
  std::vector<Model::LayerKind> kinds;  // window and RoPE
  std::vector<size_t> kind_of_layer;    // index into kinds
  NormStyle norm_style = NormStyle::kPlain;
  double norm_eps = 1e-6;
  double score_scale = 1;  // of attention scores before the softmax
  GateKind activation = GateKind::kSilu;
  bool scaled_embedding = false;  // by √hidden_size
};

}  // namespace osler
