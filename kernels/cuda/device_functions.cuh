// What kernels of every family share on the device.
#pragma once

#include <cstdint>

namespace osler::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.69314718055994531f;

// In shared memory's own 32-bit space.
__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 2^x as the special function unit has it.
__device__ __forceinline__ float Exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// Lane c of four gets word c of lane i as its word i.
__device__ __forceinline__ void TransposeQuad(uint32_t (&words)[4], int lane) {
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    const bool upper = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      const uint32_t sent = upper ? words[i] : words[i + step];
      const uint32_t received = __shfl_xor_sync(~0u, sent, step);
      (upper ? words[i] : words[i + step]) = received;
    }
  }
}

}  // namespace osler::cuda
