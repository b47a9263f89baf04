// Sums and maxima over a warp or a group of warps, in a fixed order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace osler::cuda {

inline constexpr unsigned kWholeWarp = 0xffffffffU;

// Over groups of `lanes` neighbouring lanes, a power of two; every lane gets the result.
__device__ inline float LaneSum(float v, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) v += __shfl_xor_sync(kWholeWarp, v, step);
  return v;
}

__device__ inline float WarpSum(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(kWholeWarp, v, step);
  return v;
}

__device__ inline double WarpSum(double v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(kWholeWarp, v, step);
  return v;
}

__device__ inline float WarpMax(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(kWholeWarp, v, step));
  return v;
}

inline constexpr int kMaxWarps = 32;

// Threads (·, y) of a block sum their values; blockDim.x is a multiple of 32. `scratch` is
// kMaxWarps floats, and must alternate between two places from call to call: then one barrier a
// call is enough. That of a group lets each y go its own pace, at most 15 of them, but a block
// takes all sixteen of its barriers, so that few blocks share a multiprocessor.
enum class Barrier { kOfBlock, kOfGroup };
template <Barrier barrier>
__device__ inline float GroupSum(float v, float* scratch) {
  v = WarpSum(v);
  if (blockDim.x == 32) return v;
  const unsigned warps = blockDim.x / 32;
  float* own = scratch + threadIdx.y * warps;
  if (threadIdx.x % 32 == 0) own[threadIdx.x / 32] = v;
  if constexpr (barrier == Barrier::kOfGroup) {
    asm volatile("bar.sync %0, %1;" ::"r"(threadIdx.y + 1), "r"(blockDim.x) : "memory");
  } else {
    __syncthreads();
  }
  float sum = own[0];
  for (unsigned warp = 1; warp < warps; ++warp) sum += own[warp];
  return sum;
}

// Σ e^(z − max) with its max: what a row's parts are merged by.
struct ExpSum {
  float max, sum;
};

// max −∞ stands for no values.
__device__ inline float FiniteOrZero(float max) { return max == -INFINITY ? 0.0F : max; }

}  // namespace osler::cuda
