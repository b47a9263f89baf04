// Gated feed-forward activations on CUDA: act(gate) · up, and its gradients from gate and up alone.
//
// kernels/gated_activation.h says what is computed and where values are rounded. As in
// kernels/cuda/rms_norm.h: device pointers, deterministic, asynchronous, thread-safe; 16-byte
// accesses where addresses, strides and the width allow them. A fused [rows, 2 · width] is two
// matrices whose stride is twice their width.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"  // Element, kUnsupported
#include "kernels/gate_kind.h"

namespace osler::cuda {

// [rows, width]: rows of dense values, `stride` values apart.
struct Matrix {
  void* data;
  int64_t stride;
};

struct GatedForward {
  Matrix gate, up, y;
  int64_t rows;
  int32_t width;
  GateKind kind;
  Element element;
};

// grad_gate and grad_up may stand in the place of gate and up.
struct GatedBackward {
  Matrix grad, gate, up, grad_gate, grad_up;
  int64_t rows;
  int32_t width;
  GateKind kind;
  Element element;
};

}  // namespace osler::cuda

extern "C" {
// Each returns 0, a cudaError_t, or kUnsupported.
int osler_gated_forward(const osler::cuda::GatedForward* arguments, void* stream);
int osler_gated_backward(const osler::cuda::GatedBackward* arguments, void* stream);
}
