// The activations that gate a feed-forward layer.
#pragma once

namespace osler {

enum class GateKind {
  kGeluTanh,  // x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))): GeGLU of Gemma
  kSilu,      // x / (1 + e^−x): SwiGLU of Llama and Qwen
};

}  // namespace osler
