// The keys of config.json that every decoder family spells alike. Errors stay in the reader; what
// the blocks do not compute is refused, not ignored: a run must not train another model than the
// file describes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/rope.h"
#include "model/config_reader.h"
#include "model/decoder/decoder_config.h"

namespace osler {

// layer_types; kinds 0 and 1 of Model::layer_kinds in families that have both.
inline constexpr char kGlobalLayers[] = "full_attention", kLocalLayers[] = "sliding_attention";
inline constexpr size_t kGlobalKind = 0, kLocalKind = 1;
// Limits far above any released model: they catch nonsense before it becomes an allocation.
inline constexpr int64_t kMaxLayers = 4096, kMaxPositions = int64_t{1} << 31;

// What a file that leaves a size out means: the defaults of transformers' configuration class.
struct SizeDefaults {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t key_value_heads = 0;  // 0: as many as heads, which an explicit null means everywhere
  int64_t head_dim = 0;         // 0: hidden_size / heads
  int64_t max_positions = 0;
};
// Sizes, rms_norm_eps and initializer_range.
void ReadSizes(ConfigReader& text, const SizeDefaults& defaults, DecoderConfig& config);

// Refuses another value of `key` than the activation given, and what no family here has: dropout of
// attention, rotation of a part of a head, quantized weights, biases everywhere.
void RefuseOthers(ConfigReader& text, const char* key, const char* activation);

// `by_default` is each layer's kind when layer_types does not say it.
std::vector<size_t> ReadLayerTypes(ConfigReader& text, std::vector<size_t> by_default);

// The context lengths that a RoPE object may leave to the keys around it.
struct ContextLengths {
  int64_t max_positions = 0;
  int64_t original_positions = 0;  // 0: the object's own counts, or else max_positions
};

// One object {rope_theta, rope_type or type, factor, …}: default, linear, llama3 or yarn. Values
// given are kept where a key is absent.
void ReadRope(ConfigReader& rope, const ContextLengths& lengths, RopeOptions& options);

// The RoPE of a family whose layers share one, in both spellings: rope_theta beside rope_scaling,
// or rope_parameters.
RopeOptions ReadSharedRope(ConfigReader& text, int64_t max_positions);

// q, k, v, o and the gated MLP.
LayerNames ProjectionNames();
// A layer with two plain norms, one before attention and one before the MLP.
LayerNames PreNormNames();

}  // namespace osler
