// Rotation of query or key heads on CUDA, alone and after their RMS normalisation.
//
// kernels/norm_rope.h and kernels/rope.h say what is computed and where values are rounded. As in
// kernels/cuda/rms_norm.h: device pointers, deterministic, asynchronous, thread-safe; 16-byte
// accesses where addresses, strides and the halves of a head allow them.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"  // Element, Rows, kUnsupported
#include "kernels/norm_style.h"

namespace osler::cuda {

struct RopeShape {
  const float* cos;  // the first width / 2 of each row of [tokens, width], dense
  const float* sin;
  int64_t tokens;
  int32_t heads, width;    // width: even, up to 512
  float direction;         // 1; −1 turns back
  Element element;         // of all values
  Element weight_element;  // element, or fp32
};

struct NormRopeForward {
  RopeShape shape;
  Rows x, y;           // [tokens, heads, width]; they may be the same
  const void* weight;  // [width]; null: rotate only
  float* inverse_rms;  // [tokens, heads], or null with weight
  float eps;
  NormStyle style;
};

// Of the normalised rotation. That of the rotation alone is the rotation, turned back.
struct NormRopeBackward {
  RopeShape shape;
  Rows grad, x, grad_x;
  const void* weight;
  const float* inverse_rms;
  float* grad_weight;  // [width], overwritten; null: not wanted
  float* workspace;    // osler_norm_rope_workspace() floats; null without grad_weight
  NormStyle style;
};

}  // namespace osler::cuda

extern "C" {
// Each returns 0, a cudaError_t, or kUnsupported.
int osler_norm_rope_forward(const osler::cuda::NormRopeForward* arguments, void* stream);
int osler_norm_rope_backward(const osler::cuda::NormRopeBackward* arguments, void* stream);
int64_t osler_norm_rope_workspace(int32_t width);  // on the current device
}
