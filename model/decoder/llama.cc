#include "model/decoder/llama.h"

#include <cmath>

#include "model/decoder/config_keys.h"

namespace osler {

absl::StatusOr<DecoderConfig> ReadLlama(ConfigReader& root) {
  DecoderConfig config;
  config.family = "llama";
  config.layer_names = PreNormNames();
  config.tied_head = root.Bool("tie_word_embeddings", false);
  ReadSizes(root,
            {.vocab_size = 32000,
             .hidden_size = 4096,
             .intermediate_size = 11008,
             .layers = 32,
             .heads = 32,
             .max_positions = 2048},
            config);
  if (config.hidden_size % config.heads != 0)  // transformers would not load what we export
    root.Fail("hidden_size", "must be a multiple of num_attention_heads in a Llama model");
  config.score_scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
  RefuseOthers(root, "hidden_act", "silu");
  config.kinds = {{.window = {}, .rope = ReadSharedRope(root, config.max_positions)}};
  config.kind_of_layer.assign(static_cast<size_t>(config.layers), kGlobalKind);
  if (!root.status().ok()) return root.status();
  return config;
}

}  // namespace osler
