// Gemma 3 text models (Gemma team, "Gemma 3 Technical Report", 2025), 270M to 27B and MedGemma's
// text half.
//
// Pre- and post-norms around attention and MLP, RMS norms of query and key before RoPE, grouped
// keys, tanh-GELU gate, five local layers to one global. Parameters carry the names of Hugging
// Face's Gemma3ForCausalLM.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/decoder/gemma3_config.h"
#include "model/registry.h"

namespace osler {

ModelSpec MakeGemma3Spec(const Gemma3Config& config);

// The Gemma3ForCausalLM name of a tensor in any of the spellings of text-only and multimodal
// checkpoints (docs/model.md); nullopt for the vision half and for a tied head's copy.
std::optional<std::string> Gemma3CanonicalName(std::string_view tensor, bool tied_head);

}  // namespace osler
