#include "model/decoder/config_keys.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

constexpr int64_t kMaxWidth = 1 << 20, kMaxVocabulary = 1 << 24, kMaxHeads = 4096;

void ReadHeads(ConfigReader& text, const SizeDefaults& defaults, DecoderConfig& config) {
  config.heads = text.Int("num_attention_heads", defaults.heads, 1, kMaxHeads);
  const bool as_heads = defaults.key_value_heads == 0 || text.IsNull("num_key_value_heads");
  config.key_value_heads = text.Int(
      "num_key_value_heads", as_heads ? config.heads : defaults.key_value_heads, 1, kMaxHeads);
  if (config.heads % config.key_value_heads != 0) {
    text.Fail("num_attention_heads",
              absl::StrCat("is ", config.heads, ", but must be a multiple of ",
                           "num_key_value_heads, which is ", config.key_value_heads));
  }
  const int64_t share = config.hidden_size / config.heads;
  config.head_dim =
      text.Int("head_dim", defaults.head_dim == 0 ? share : defaults.head_dim, 8, 256);
  if (config.head_dim % 8 != 0 || config.head_dim < 8 || config.head_dim > 256) {
    text.Fail("head_dim", absl::StrCat("is ", config.head_dim,
                                       text.Has("head_dim") ? "" : " (hidden_size over heads)",
                                       ", but must be a multiple of 8 up to 256"));
  }
}

double Needed(ConfigReader& rope, const std::string& type, const char* key) {
  if (!rope.Has(key)) rope.Fail(key, absl::StrCat("is missing, but rope_type ", type, " needs it"));
  return rope.Positive(key, 1);
}

double NotNegative(ConfigReader& rope, const char* key) {
  const double number = rope.Number(key, 0);
  if (number < 0) rope.Fail(key, "must not be negative");
  return std::max(number, 0.0);
}

int64_t ReadOriginalPositions(ConfigReader& rope, const ContextLengths& lengths) {
  const int64_t own =
      rope.Int("original_max_position_embeddings", lengths.max_positions, 1, kMaxPositions);
  return lengths.original_positions > 0 ? lengths.original_positions : own;
}

Llama3Ramp ReadLlama3(ConfigReader& rope, const ContextLengths& lengths) {
  const Llama3Ramp ramp{.low_factor = Needed(rope, "llama3", "low_freq_factor"),
                        .high_factor = Needed(rope, "llama3", "high_freq_factor"),
                        .original_positions = ReadOriginalPositions(rope, lengths)};
  if (ramp.high_factor <= ramp.low_factor)
    rope.Fail("high_freq_factor", "must be above low_freq_factor");
  return ramp;
}

// What YaRN multiplies cosines and sines by unless the file says a number.
double YarnMagnitude(double factor, double scale, double scale_all) {
  const auto growth = [factor](double by) {
    return factor <= 1 ? 1.0 : 0.1 * by * std::log(factor) + 1;
  };
  return scale != 0 && scale_all != 0 ? growth(scale) / growth(scale_all) : growth(1);
}

// Sets options.factor too.
YarnRamp ReadYarn(ConfigReader& rope, const ContextLengths& lengths, RopeOptions& options) {
  YarnRamp ramp{.fast_turns = rope.Positive("beta_fast", 32),
                .slow_turns = rope.Positive("beta_slow", 1),
                .original_positions = ReadOriginalPositions(rope, lengths),
                .truncate = rope.Bool("truncate", true)};
  // null: the ratio of the contexts.
  options.factor = rope.IsNull("factor") ? static_cast<double>(lengths.max_positions) /
                                               static_cast<double>(ramp.original_positions)
                                         : Needed(rope, "yarn", "factor");
  ramp.magnitude =
      rope.Positive("attention_factor", YarnMagnitude(options.factor, NotNegative(rope, "mscale"),
                                                      NotNegative(rope, "mscale_all_dim")));
  if (ramp.fast_turns < ramp.slow_turns) rope.Fail("beta_fast", "must not be below beta_slow");
  if (options.theta <= 1) rope.Fail("rope_theta", "must be above 1 for rope_type yarn");
  return ramp;
}

}  // namespace

void ReadSizes(ConfigReader& text, const SizeDefaults& defaults, DecoderConfig& config) {
  config.vocab_size = text.Int("vocab_size", defaults.vocab_size, 1, kMaxVocabulary);
  config.hidden_size = text.Int("hidden_size", defaults.hidden_size, 1, kMaxWidth);
  config.intermediate_size =
      text.Int("intermediate_size", defaults.intermediate_size, 1, kMaxWidth);
  config.layers = text.Int("num_hidden_layers", defaults.layers, 1, kMaxLayers);
  config.max_positions =
      text.Int("max_position_embeddings", defaults.max_positions, 1, kMaxPositions);
  config.norm_eps = text.Positive("rms_norm_eps", 1e-6);
  config.initializer_range = text.Positive("initializer_range", 0.02);
  ReadHeads(text, defaults, config);
}

void RefuseOthers(ConfigReader& text, const char* key, const char* activation) {
  const std::string given = text.String(key, activation);
  if (given != activation)
    text.Fail(key, absl::StrCat("is \"", given, "\", but only ", activation, " is supported"));
  for (const char* off : {"attention_bias", "mlp_bias"}) {
    if (text.Bool(off, false)) text.Fail(off, "is true, but only false is supported");
  }
  if (text.Number("attention_dropout", 0) != 0)
    text.Fail("attention_dropout", "is not 0, but attention dropout is not supported");
  if (text.Number("partial_rotary_factor", 1) != 1)
    text.Fail("partial_rotary_factor", "is not 1, which is not supported");
  if (text.Has("quantization_config"))
    text.Fail("quantization_config", "is set, but only unquantized weights can be trained");
}

std::vector<size_t> ReadLayerTypes(ConfigReader& text, std::vector<size_t> by_default) {
  if (!text.Has("layer_types")) return by_default;
  const std::vector<std::string> types = text.Strings("layer_types");
  if (types.size() != by_default.size()) {
    text.Fail("layer_types",
              absl::StrCat("has ", types.size(), " entries, but num_hidden_layers is ",
                           by_default.size()));
    return by_default;
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] != kGlobalLayers && types[i] != kLocalLayers) {
      text.Fail("layer_types", absl::StrCat("names \"", types[i], "\" for layer ", i,
                                            "; supported: ", kGlobalLayers, ", ", kLocalLayers));
    }
    by_default[i] = types[i] == kLocalLayers ? kLocalKind : kGlobalKind;
  }
  return by_default;
}

void ReadRope(ConfigReader& rope, const ContextLengths& lengths, RopeOptions& options) {
  options.theta = rope.Positive("rope_theta", options.theta);
  if (rope.Number("partial_rotary_factor", 1) != 1)
    rope.Fail("partial_rotary_factor", "is not 1, which is not supported");
  const std::string type = rope.String("rope_type", rope.String("type", "default"));
  if (type != "default") options = {.theta = options.theta};
  if (type == "linear") {
    options.factor = Needed(rope, type, "factor");
  } else if (type == "llama3") {
    options.factor = Needed(rope, type, "factor");
    options.llama3 = ReadLlama3(rope, lengths);
  } else if (type == "yarn") {
    options.yarn = ReadYarn(rope, lengths, options);
  } else if (type != "default") {
    rope.Fail("rope_type",
              absl::StrCat("is \"", type, "\"; supported: default, linear, llama3, yarn"));
  }
}

RopeOptions ReadSharedRope(ConfigReader& text, int64_t max_positions) {
  RopeOptions options;
  options.theta = text.Positive("rope_theta", options.theta);
  ConfigReader scaling = text.Object("rope_scaling"), parameters = text.Object("rope_parameters");
  for (const char* kind : {kGlobalLayers, kLocalLayers}) {
    if (parameters.Has(kind))
      parameters.Fail(kind, "is set, but this family's layers share one RoPE");
  }
  // A file with both means the older; the context beside the object goes before the one inside.
  // Both as in transformers.
  ReadRope(
      scaling.Keys().empty() ? parameters : scaling,
      {.max_positions = max_positions,
       .original_positions = text.Int("original_max_position_embeddings", 0, 1, kMaxPositions)},
      options);
  text.Merge(scaling);
  text.Merge(parameters);
  return options;
}

LayerNames ProjectionNames() {
  return {{LayerRole::kQuery, "self_attn.q_proj.weight"},
          {LayerRole::kKey, "self_attn.k_proj.weight"},
          {LayerRole::kValue, "self_attn.v_proj.weight"},
          {LayerRole::kOutput, "self_attn.o_proj.weight"},
          {LayerRole::kGate, "mlp.gate_proj.weight"},
          {LayerRole::kUp, "mlp.up_proj.weight"},
          {LayerRole::kDown, "mlp.down_proj.weight"}};
}

LayerNames PreNormNames() {
  LayerNames names = ProjectionNames();
  names[LayerRole::kInputNorm] = "input_layernorm.weight";
  names[LayerRole::kPreFeedForwardNorm] = "post_attention_layernorm.weight";
  return names;
}

}  // namespace osler
