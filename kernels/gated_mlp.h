// A gated feed-forward layer (Shazeer 2020) over chunks of tokens: what it keeps and what it needs
// at once do not grow with the width of the layer times the length of the sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/gate_kind.h"

namespace osler {

// (act(x gateᵀ) · (x upᵀ)) downᵀ: x_TD is [T, D], gate_FD and up_FD [F, D], down_DF [D, F], all of
// one dtype (fp32, fp64, bf16). Returns [T, D]. Differentiable once through autograd.
//
// chunk_tokens = 0: all tokens at once; backward finds gate, up and their product, 3 T F values.
// chunk_tokens > 0: that many tokens at a time, forward and back. Only x is kept; backward computes
// a chunk's gate and up again (11 products for the layer instead of 9) and sums the weights'
// gradients over the chunks in fp32 or wider. At most 5 chunk_tokens F values live at once.
// Throws c10::Error on other shapes. Thread-safe.
at::Tensor GatedMlp(const at::Tensor& x_TD, const at::Tensor& gate_FD, const at::Tensor& up_FD,
                    const at::Tensor& down_DF, GateKind kind, int64_t chunk_tokens);

}  // namespace osler
