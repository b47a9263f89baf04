// Attention under row-interval masks on CUDA: what its kernels are told, without torch.
//
// kernels/interval_attention.h says what is computed. Pointers are device pointers, strides count
// elements, the last dimension is dense; base addresses and strides are multiples of 16 bytes.
// Deterministic: no atomics, every sum in a fixed order. Calls launch on `stream` (a cudaStream_t)
// and return at once; thread-safe. The entry points are C functions, so that any language can call
// them: tests and benchmarks do so from Python.
#pragma once

#include <cstdint>

namespace osler::cuda {

enum class Element : int32_t { kBf16 = 0, kFp16 = 1, kFp32 = 2 };

// Of a tensor [tokens, heads, width].
struct Rows {
  void* data;
  int64_t token_stride, head_stride;
};

struct AttentionInput {
  Rows q, k, v;       // [queries, heads, width], [keys, key_heads, width] twice
  const int32_t* lo;  // [queries]: row i sees the keys [lo[i], hi[i]); both non-decreasing
  const int32_t* hi;
  int32_t queries, keys, heads, key_heads, width;  // width: a multiple of 8 up to 256
  float scale;                                     // of the scores before the softmax
  float soft_cap;                                  // scores x become c · tanh(x / c); 0: they stay
  Element element;                                 // of q, k and v: bf16 or fp16
};

struct AttentionForward {
  AttentionInput in;
  Rows out;
  Element out_element;  // in.element, or fp32: parts that are to be merged
  float* lse;           // [queries, heads], natural log-sum-exp; −∞ for a row that sees nothing
};

struct AttentionBackward {
  AttentionInput in;
  Rows out, grad_out;  // of out_element
  Element out_element;
  const float* lse;       // [queries, heads]
  const float* grad_lse;  // [queries, heads], or null
  Rows grad_q, grad_k, grad_v;
  Element grad_element;  // of the three: in.element, or fp32: parts that are to be summed
  float* workspace;      // osler_attention_workspace() floats
};

// Which kernels: kAuto takes the best that this device has.
enum class AttentionKernels : int32_t { kAuto = 0, kSm80 = 80, kSm90 = 90 };

inline constexpr int kUnsupported = -1;  // else 0 or a cudaError_t

}  // namespace osler::cuda

extern "C" {
// Each returns 0, a cudaError_t, or kUnsupported: a shape, or a device, that those kernels lack.
int osler_attention_forward(const osler::cuda::AttentionForward* arguments,
                            osler::cuda::AttentionKernels kernels, void* stream);
int osler_attention_backward(const osler::cuda::AttentionBackward* arguments,
                             osler::cuda::AttentionKernels kernels, void* stream);
int64_t osler_attention_workspace(int32_t queries, int32_t heads);
}
