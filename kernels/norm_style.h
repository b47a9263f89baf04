// The two ways models multiply a normalised value by a weight.
#pragma once

namespace osler {

// Gemma multiplies the normalised value by (1 + w) in fp32 before casting back; Llama casts back,
// then multiplies by w.
enum class NormStyle { kGemma, kPlain };

}  // namespace osler
