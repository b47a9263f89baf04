// Delays at random, for tests (libosler_cuda_delays.so): what is right only because one thing
// usually takes longer than another, goes wrong then. Elsewhere nothing.
#pragma once

#include <cstdint>

namespace osler::cuda {

#ifdef OSLER_CUDA_DELAYS
inline constexpr bool kDelays = true;
#else
inline constexpr bool kDelays = false;
#endif

// Up to about two microseconds, in one of four calls. Called wherever threads signal or wait.
__device__ __forceinline__ void Delay() {
  if constexpr (kDelays) {
    uint32_t warp;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(warp));
    warp = warp * 64 + threadIdx.x / 32;
    uint32_t hash = (static_cast<uint32_t>(clock64()) ^ warp * 0x9e3779b9u) * 0x85ebca6bu;
    hash ^= hash >> 15;
    // Without a branch: kernels rely on warps that stay together.
    __nanosleep((hash & 3) == 0 ? hash >> 22 : 0);
  }
}

}  // namespace osler::cuda
