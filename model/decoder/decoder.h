// The model that a DecoderConfig describes: its blocks, parameters, placements and names.
//
// Parameters carry the names of Hugging Face's text-only models: model.embed_tokens.weight,
// model.layers.N.<role>, model.norm.weight, and lm_head.weight when the head is not tied.
#pragma once

#include "model/decoder/decoder_config.h"
#include "model/registry.h"

namespace osler {

ModelSpec MakeDecoderSpec(const DecoderConfig& config);

}  // namespace osler
