// Gated feed-forward activations (Shazeer 2020): act(gate) · up in one pass.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/gate_kind.h"

namespace osler {

// gate and up are [..., F] of one shape and dtype (fp32, fp64 or bf16; rows of F values dense, else
// they are copied); the result is contiguous. act is computed in fp32 (fp64 for fp64) and rounded
// to the dtype before the product, as models do. Differentiable once through autograd; saves gate
// and up only, the activation is computed again. The bits do not depend on the number of threads.
// Thread-safe.
at::Tensor GatedActivation(const at::Tensor& gate, const at::Tensor& up, GateKind kind);

}  // namespace osler
