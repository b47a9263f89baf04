// Root-mean-square normalisation of rows on CUDA, alone and fused with a residual addition.
//
// kernels/rms_norm.h says what is computed and where values are rounded. Pointers are device
// pointers, tensors are contiguous. Rows whose addresses are multiples of 16 bytes move in 16-byte
// accesses, others an element at a time. Deterministic: no atomics, every sum in a fixed order.
// Calls launch on `stream` (a cudaStream_t) and return at once; thread-safe.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"  // Element, kUnsupported
#include "kernels/norm_style.h"

namespace osler::cuda {

// x is normalised; with residual and sum, residual + x is, and is stored in sum; with residual
// alone, the normalised value is added to it.
struct RmsNormForward {
  const void* x;         // [rows, width], like residual, sum and y
  const void* residual;  // or null
  const void* weight;    // [width]
  void* sum;             // or null
  void* y;
  float* inverse_rms;  // [rows]
  int64_t rows;
  int32_t width;  // up to 16384
  float eps;
  NormStyle style;
  Element element;         // of x, residual, sum and y
  Element weight_element;  // element, or fp32
};

struct RmsNormBackward {
  const void* grad;  // [rows, width], of the normalised value
  const void* x;     // what was normalised
  const void* weight;
  const float* inverse_rms;
  const void* grad_sum;  // added to grad_x, or null
  void* grad_x;
  float* grad_weight;  // [width], overwritten; null: not wanted
  float* workspace;    // osler_rms_norm_workspace() floats; null without grad_weight
  int64_t rows;
  int32_t width;  // up to 16384
  NormStyle style;
  Element element;  // of grad, x, grad_sum and grad_x
  Element weight_element;
};

}  // namespace osler::cuda

extern "C" {
// Each returns 0, a cudaError_t, or kUnsupported.
int osler_rms_norm_forward(const osler::cuda::RmsNormForward* arguments, void* stream);
int osler_rms_norm_backward(const osler::cuda::RmsNormBackward* arguments, void* stream);
int64_t osler_rms_norm_workspace(int32_t width);  // on the current device
}
