#include "model/decoder/gemma3.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/decoder/config_keys.h"

namespace osler {
namespace {

LayerNames Names() {
  LayerNames names = ProjectionNames();
  names[LayerRole::kQueryNorm] = "self_attn.q_norm.weight";
  names[LayerRole::kKeyNorm] = "self_attn.k_norm.weight";
  names[LayerRole::kInputNorm] = "input_layernorm.weight";
  names[LayerRole::kPostAttentionNorm] = "post_attention_layernorm.weight";
  names[LayerRole::kPreFeedForwardNorm] = "pre_feedforward_layernorm.weight";
  names[LayerRole::kPostFeedForwardNorm] = "post_feedforward_layernorm.weight";
  return names;
}

// docs/model.md says who writes which.
CheckpointNames Spellings() {
  return {.prefixes = {"language_model.model.", "model.language_model.", "model."},
          .heads = {"lm_head.weight", "language_model.lm_head.weight"},
          .ignored = {"vision_tower.", "model.vision_tower.", "multi_modal_projector.",
                      "model.multi_modal_projector."}};
}

void RefuseOtherGemmas(ConfigReader& text) {
  RefuseOthers(text, "hidden_activation", "gelu_pytorch_tanh");
  for (const char* key : {"final_logit_softcapping", "attn_logit_softcapping"}) {
    if (text.Has(key))
      text.Fail(key, "is set, but soft-capping is not supported for Gemma 3: it must be null");
  }
  if (text.Bool("use_bidirectional_attention", false))
    text.Fail("use_bidirectional_attention", "is true, but only false is supported");
}

// Layer i is global when the pattern divides i + 1, unless layer_types says which is which.
std::vector<size_t> ReadKindOfLayer(ConfigReader& text, int64_t layers) {
  const int64_t pattern = text.Int("sliding_window_pattern", 6, 1, kMaxLayers);
  std::vector<size_t> kinds;
  for (int64_t i = 1; i <= layers; ++i)
    kinds.push_back(i % pattern == 0 ? kGlobalKind : kLocalKind);
  return ReadLayerTypes(text, std::move(kinds));
}

// Both spellings: rope_theta, rope_local_base_freq and rope_scaling (global layers only); or
// rope_parameters by kind.
void ReadRopes(ConfigReader& text, DecoderConfig& config) {
  RopeOptions& global_rope = config.kinds[kGlobalKind].rope;
  RopeOptions& local_rope = config.kinds[kLocalKind].rope;
  global_rope.theta = text.Positive("rope_theta", 1e6);
  local_rope.theta = text.Positive("rope_local_base_freq", 1e4);
  ConfigReader both = text.Object("rope_parameters");
  for (const std::string& key : both.Keys()) {
    if (key != kGlobalLayers && key != kLocalLayers) {
      both.Fail(key.c_str(), absl::StrCat("is not known here; Gemma 3 has one object for each of ",
                                          kGlobalLayers, ", ", kLocalLayers));
    }
  }
  ConfigReader global = both.Object(kGlobalLayers), local = both.Object(kLocalLayers),
               scaling = text.Object("rope_scaling");
  const ContextLengths lengths{.max_positions = config.max_positions};
  ReadRope(global, lengths, global_rope);
  ReadRope(local, lengths, local_rope);
  ReadRope(scaling, lengths, global_rope);
  for (const ConfigReader* reader : {&both, &global, &local, &scaling}) text.Merge(*reader);
}

absl::StatusOr<DecoderConfig> Read(ConfigReader text, bool tied_head) {
  DecoderConfig config;
  config.family = "gemma3_text";
  config.tied_head = tied_head;
  config.layer_names = Names();
  config.checkpoint_names = Spellings();
  config.norm_style = NormStyle::kGemma;
  config.activation = GateKind::kGeluTanh;
  config.scaled_embedding = true;
  ReadSizes(text,
            {.vocab_size = 262208,
             .hidden_size = 2304,
             .intermediate_size = 9216,
             .layers = 26,
             .heads = 8,
             .key_value_heads = 4,
             .head_dim = 256,
             .max_positions = 131072},
            config);
  config.score_scale = 1 / std::sqrt(text.Positive("query_pre_attn_scalar", 256));
  RefuseOtherGemmas(text);
  config.kinds.resize(2);
  config.kinds[kLocalKind].window = text.Int("sliding_window", 4096, 1, kMaxPositions);
  config.kind_of_layer = ReadKindOfLayer(text, config.layers);
  ReadRopes(text, config);
  if (!text.status().ok()) return text.status();
  return config;
}

}  // namespace

absl::StatusOr<DecoderConfig> ReadGemma3Text(ConfigReader& root) {
  const bool tied = root.Bool("tie_word_embeddings", true);
  if (!root.status().ok()) return root.status();
  return Read(root, tied);
}

absl::StatusOr<DecoderConfig> ReadGemma3Multimodal(ConfigReader& root) {
  const bool tied = root.Bool("tie_word_embeddings", true);
  const ConfigReader text = root.Object("text_config");
  if (!root.status().ok()) return root.status();
  return Read(text, tied);
}

}  // namespace osler
