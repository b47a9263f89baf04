// What the row kernels' entry points share; inside kernels/cuda/rows/ only.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/rows/pack.cuh"

namespace osler::cuda {

// f(Bf16{}), f(Fp16{}) or f(Fp32{}).
template <typename F>
int ForElement(Element element, F f) {
  switch (element) {
    case Element::kBf16: return f(Bf16{});
    case Element::kFp16: return f(Fp16{});
    case Element::kFp32: return f(Fp32{});
  }
  return kUnsupported;
}

inline bool Aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
template <typename... P>
bool AllAligned16(const P*... p) {
  return (Aligned16(p) && ...);
}

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of the current device; 0 where it cannot be asked.
inline int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess) {
    return 0;
  }
  return value;
}

inline int Multiprocessors() {
  return std::max(DeviceAttribute(cudaDevAttrMultiProcessorCount), 1);
}
inline int ComputeCapabilityMajor() { return DeviceAttribute(cudaDevAttrComputeCapabilityMajor); }

// out[column] = Σ of parts[·][column], in an order that `count` alone decides.
int SumColumns(const float* parts, int count, int width, float* out, cudaStream_t stream);

}  // namespace osler::cuda
