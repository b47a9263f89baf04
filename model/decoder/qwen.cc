#include "model/decoder/qwen.h"

#include <cmath>
#include <utility>
#include <vector>

#include "model/decoder/config_keys.h"

namespace osler {
namespace {

// With use_sliding_window, layers from max_window_layers up see the last sliding_window tokens,
// unless layer_types says which do.
void ReadWindows(ConfigReader& root, DecoderConfig& config) {
  const RopeOptions rope = ReadSharedRope(root, config.max_positions);
  config.kinds = {{.window = {}, .rope = rope}};
  const bool windowed = root.Bool("use_sliding_window", false) && !root.IsNull("sliding_window");
  const int64_t window = root.Int("sliding_window", 4096, 1, kMaxPositions);
  const int64_t full = root.Int("max_window_layers", 28, 0, kMaxLayers);
  std::vector<size_t> kinds;
  for (int64_t i = 0; i < config.layers; ++i)
    kinds.push_back(windowed && i >= full ? kLocalKind : kGlobalKind);
  config.kind_of_layer = ReadLayerTypes(root, std::move(kinds));
  if (windowed) {
    config.kinds.push_back({.window = window, .rope = rope});
    return;
  }
  for (const size_t kind : config.kind_of_layer) {
    if (kind == kLocalKind)
      root.Fail("layer_types", "names sliding_attention, but use_sliding_window is not true");
  }
}

absl::StatusOr<DecoderConfig> Read(ConfigReader& root, DecoderConfig config, int64_t head_dim) {
  config.tied_head = root.Bool("tie_word_embeddings", false);
  ReadSizes(root,
            {.vocab_size = 151936,
             .hidden_size = 4096,
             .intermediate_size = 22016,
             .layers = 32,
             .heads = 32,
             .key_value_heads = 32,
             .head_dim = head_dim,
             .max_positions = 32768},
            config);
  config.score_scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
  RefuseOthers(root, "hidden_act", "silu");
  ReadWindows(root, config);
  if (!root.status().ok()) return root.status();
  return config;
}

}  // namespace

absl::StatusOr<DecoderConfig> ReadQwen2(ConfigReader& root) {
  DecoderConfig config;
  config.family = "qwen2";
  config.layer_names = PreNormNames();
  config.layer_names[LayerRole::kQueryBias] = "self_attn.q_proj.bias";
  config.layer_names[LayerRole::kKeyBias] = "self_attn.k_proj.bias";
  config.layer_names[LayerRole::kValueBias] = "self_attn.v_proj.bias";
  return Read(root, std::move(config), /*head_dim=*/0);
}

absl::StatusOr<DecoderConfig> ReadQwen3(ConfigReader& root) {
  DecoderConfig config;
  config.family = "qwen3";
  config.layer_names = PreNormNames();
  config.layer_names[LayerRole::kQueryNorm] = "self_attn.q_norm.weight";
  config.layer_names[LayerRole::kKeyNorm] = "self_attn.k_norm.weight";
  return Read(root, std::move(config), /*head_dim=*/128);
}

}  // namespace osler
