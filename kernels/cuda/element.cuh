// Two 16-bit elements in one register: the lower half comes first in memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"

namespace osler::cuda {

template <Element kElement>
__device__ __forceinline__ uint32_t Pack(float first, float second) {
  static_assert(kElement != Element::kFp32);
  uint32_t pair;
  if constexpr (kElement == Element::kBf16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  }
  return pair;
}

template <Element kElement>
__device__ __forceinline__ float2 Unpack(uint32_t pair) {
  static_assert(kElement != Element::kFp32);
  float2 values;
  if constexpr (kElement == Element::kBf16) {
    values = {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  } else {
    asm volatile(
        "{.reg .f16 first, second; mov.b32 {first, second}, %2;\n"
        "cvt.f32.f16 %0, first; cvt.f32.f16 %1, second;}"
        : "=f"(values.x), "=f"(values.y)
        : "r"(pair));
  }
  return values;
}

// 8 consecutive elements of the type, which is known at run time, as fp32.
__device__ __forceinline__ void Load8(const void* data, int64_t at, Element element,
                                      float (&values)[8]) {
  if (element == Element::kFp32) {
    const float4* from = reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
    const float4 low = from[0], high = from[1];
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
    return;
  }
  const uint4 words = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(data) + at);
  const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = element == Element::kBf16 ? Unpack<Element::kBf16>(pairs[i])
                                                 : Unpack<Element::kFp16>(pairs[i]);
    values[2 * i] = two.x;
    values[2 * i + 1] = two.y;
  }
}

}  // namespace osler::cuda
