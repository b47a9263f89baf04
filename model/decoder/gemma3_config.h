// The text half of a Gemma 3 config.json, checked. docs/model.md lists what is read and what is
// refused.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/rope.h"
#include "model/config_reader.h"

namespace osler {

struct Gemma3Config {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  int64_t window = 0;       // of local layers; counts the token itself
  std::vector<bool> local;  // by layer
  RopeOptions global_rope, local_rope;
  double score_scale = 0;  // query_pre_attn_scalar^-0.5
  double norm_eps = 0;
  double initializer_range = 0;
  bool tied_head = true;
};

// Reads the keys that describe the text model from `text` (the root of a text-only config, or its
// "text_config"). `tied_head` is the caller's, because in a multimodal config it stands at the
// root.
absl::StatusOr<Gemma3Config> ReadGemma3Config(ConfigReader text, bool tied_head);

}  // namespace osler
