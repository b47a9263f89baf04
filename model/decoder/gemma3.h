// Gemma 3 text models (Gemma team, "Gemma 3 Technical Report", 2025), 270M to 27B and MedGemma's
// text half.
//
// Pre- and post-norms around attention and MLP, RMS norms of query and key before RoPE, grouped
// keys, tanh-GELU gate, five local layers to one global.
#pragma once

#include "absl/status/statusor.h"
#include "model/config_reader.h"
#include "model/decoder/decoder_config.h"

namespace osler {

// Gemma3ForCausalLM.
absl::StatusOr<DecoderConfig> ReadGemma3Text(ConfigReader& root);
// The text half of Gemma3ForConditionalGeneration: keys stand in text_config, the tie at the root.
absl::StatusOr<DecoderConfig> ReadGemma3Multimodal(ConfigReader& root);

}  // namespace osler
