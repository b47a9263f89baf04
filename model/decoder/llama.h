// Llama 3.x ("The Llama 3 Herd of Models", 2024) and what else is a LlamaForCausalLM: two plain
// norms a layer, grouped keys, SiLU gate, no biases.
#pragma once

#include "absl/status/statusor.h"
#include "model/config_reader.h"
#include "model/decoder/decoder_config.h"

namespace osler {

absl::StatusOr<DecoderConfig> ReadLlama(ConfigReader& root);

}  // namespace osler
