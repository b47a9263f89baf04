// Qwen2.5 (Qwen team, "Qwen2.5 Technical Report", 2024) and Qwen3 ("Qwen3 Technical Report", 2025):
// Llama's layer with biases of query, key and value (2.5), or with norms of query and key and a
// head width of its own (3). Upper layers may see a window only.
#pragma once

#include "absl/status/statusor.h"
#include "model/config_reader.h"
#include "model/decoder/decoder_config.h"

namespace osler {

// Qwen2ForCausalLM, which is Qwen2 and Qwen2.5.
absl::StatusOr<DecoderConfig> ReadQwen2(ConfigReader& root);
absl::StatusOr<DecoderConfig> ReadQwen3(ConfigReader& root);

}  // namespace osler
