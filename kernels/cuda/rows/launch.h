// What the row kernels' entry points share; inside kernels/cuda/rows/ only.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/entry.cuh"
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

// out[column] = Σ of parts[·][column], in an order that `count` alone decides.
int SumColumns(const float* parts, int count, int width, float* out, cudaStream_t stream);

}  // namespace osler::cuda
