#include "model/decoder/gemma3_config.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

// Limits far above any released model: they catch nonsense before it becomes an allocation.
constexpr int64_t kMaxWidth = 1 << 20, kMaxVocabulary = 1 << 24, kMaxLayers = 4096,
                  kMaxHeads = 4096;
constexpr int64_t kMaxPositions = int64_t{1} << 31;
constexpr const char* kGlobal = "full_attention";
constexpr const char* kLocal = "sliding_attention";

// Defaults are those of transformers' Gemma3TextConfig: configs on the Hub leave them out.
void ReadSizes(ConfigReader& text, Gemma3Config& config) {
  config.vocab_size = text.Int("vocab_size", 262208, 1, kMaxVocabulary);
  config.hidden_size = text.Int("hidden_size", 2304, 1, kMaxWidth);
  config.intermediate_size = text.Int("intermediate_size", 9216, 1, kMaxWidth);
  config.layers = text.Int("num_hidden_layers", 26, 1, kMaxLayers);
  config.heads = text.Int("num_attention_heads", 8, 1, kMaxHeads);
  config.key_value_heads = text.Int("num_key_value_heads", 4, 1, kMaxHeads);
  config.head_dim = text.Int("head_dim", 256, 8, 256);
  config.max_positions = text.Int("max_position_embeddings", 131072, 1, kMaxPositions);
  config.score_scale = 1 / std::sqrt(text.Positive("query_pre_attn_scalar", 256));
  config.norm_eps = text.Positive("rms_norm_eps", 1e-6);
  config.initializer_range = text.Positive("initializer_range", 0.02);
  if (config.head_dim % 8 != 0) {
    text.Fail("head_dim",
              absl::StrCat("is ", config.head_dim, ", but must be a multiple of 8 up to 256"));
  }
  if (config.heads % config.key_value_heads != 0) {
    text.Fail("num_attention_heads",
              absl::StrCat("is ", config.heads, ", but must be a multiple of ",
                           "num_key_value_heads, which is ", config.key_value_heads));
  }
}

// What the blocks do not compute is refused, not ignored: a run must not train another model than
// the file describes.
void RefuseOthers(ConfigReader& text) {
  const std::string activation = text.String("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") {
    text.Fail("hidden_activation",
              absl::StrCat("is \"", activation, "\", but only gelu_pytorch_tanh is supported"));
  }
  for (const char* key : {"final_logit_softcapping", "attn_logit_softcapping"}) {
    if (text.Has(key))
      text.Fail(key, "is set, but soft-capping is not supported for Gemma 3: it must be null");
  }
  for (const char* key : {"attention_bias", "use_bidirectional_attention"}) {
    if (text.Bool(key, false)) text.Fail(key, "is true, but only false is supported");
  }
  if (text.Number("attention_dropout", 0) != 0) {
    text.Fail("attention_dropout", "is not 0, but attention dropout is not supported");
  }
}

// Layer i is global when the pattern divides i + 1, unless layer_types says which is which.
void ReadLayerKinds(ConfigReader& text, Gemma3Config& config) {
  const int64_t pattern = text.Int("sliding_window_pattern", 6, 1, kMaxLayers);
  config.local.resize(static_cast<size_t>(config.layers));
  for (int64_t i = 0; i < config.layers; ++i)
    config.local[static_cast<size_t>(i)] = (i + 1) % pattern != 0;
  if (text.Has("layer_types")) {
    const std::vector<std::string> types = text.Strings("layer_types");
    if (types.size() != config.local.size()) {
      text.Fail("layer_types", absl::StrCat("has ", types.size(),
                                            " entries, but num_hidden_layers is ", config.layers));
      return;
    }
    for (size_t i = 0; i < types.size(); ++i) {
      if (types[i] != kGlobal && types[i] != kLocal) {
        text.Fail("layer_types", absl::StrCat("names \"", types[i], "\" for layer ", i,
                                              "; supported: ", kGlobal, ", ", kLocal));
      }
      config.local[i] = types[i] == kLocal;
    }
  }
  config.window = text.Int("sliding_window", 4096, 1, kMaxPositions);
}

// One kind's {rope_theta, rope_type or type, factor}; values given are kept where a key is absent.
void ReadRope(ConfigReader& rope, RopeOptions& options) {
  options.theta = rope.Positive("rope_theta", options.theta);
  const std::string type = rope.String("rope_type", rope.String("type", "default"));
  if (type == "linear") {
    if (!rope.Has("factor")) rope.Fail("factor", "is missing, but rope_type linear needs it");
    options.factor = rope.Positive("factor", 1);
  } else if (type != "default") {
    rope.Fail("rope_type", absl::StrCat("is \"", type, "\"; supported: default, linear"));
  }
  if (rope.Number("partial_rotary_factor", 1) != 1)
    rope.Fail("partial_rotary_factor", "is not 1, which is not supported");
}

// Both spellings: rope_theta, rope_local_base_freq and rope_scaling (global layers only); or
// rope_parameters by kind.
void ReadRopes(ConfigReader& text, Gemma3Config& config) {
  config.global_rope.theta = text.Positive("rope_theta", 1e6);
  config.local_rope.theta = text.Positive("rope_local_base_freq", 1e4);
  ConfigReader both = text.Object("rope_parameters");
  for (const std::string& key : both.Keys()) {
    if (key != kGlobal && key != kLocal) {
      both.Fail(key.c_str(), absl::StrCat("is not known here; Gemma 3 has one object for each of ",
                                          kGlobal, ", ", kLocal));
    }
  }
  ConfigReader global = both.Object(kGlobal), local = both.Object(kLocal),
               scaling = text.Object("rope_scaling");
  ReadRope(global, config.global_rope);
  ReadRope(local, config.local_rope);
  ReadRope(scaling, config.global_rope);
  for (const ConfigReader* reader : {&both, &global, &local, &scaling}) text.Merge(*reader);
}

}  // namespace

absl::StatusOr<Gemma3Config> ReadGemma3Config(ConfigReader text, bool tied_head) {
  Gemma3Config config;
  config.tied_head = tied_head;
  ReadSizes(text, config);
  RefuseOthers(text);
  if (text.status().ok()) ReadLayerKinds(text, config);
  if (text.status().ok()) ReadRopes(text, config);
  if (!text.status().ok()) return text.status();
  return config;
}

}  // namespace osler
