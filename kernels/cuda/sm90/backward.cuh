// What the backward pass's kernels share: their call, the search in a mask, e^(score − lse), a
// result's rows on their way out.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/sm90/barrier.cuh"
#include "kernels/cuda/sm90/tma.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace osler::cuda::sm90 {

// One warpgroup loads, two multiply.
inline constexpr int kBlockThreads = 384;
inline constexpr int kLoadingRegisters = 24;
inline constexpr int kMultiplyingRegisters = 240;

struct BackwardCall {
  CUtensorMap q, k, v, grad_out;
  Rows grad_q, grad_k, grad_v;
  const int32_t* lo;
  const int32_t* hi;
  const float* lse2;   // [heads][padded_queries], lse · log2(e); +∞ for rows that see nothing
  const float* delta;  // [heads][padded_queries]
  int32_t queries, padded_queries, keys, heads, key_heads, width;
  float scale;
  // log2(e) · score = product · inner, or outer · tanh(product · inner / (2 · log2(e))).
  float inner, outer;
  bool wide_grads;  // the gradients are fp32
};

// A launch of one of the kernels, with so much shared memory; 0 or a cudaError_t.
inline int LaunchBackward(void (*kernel)(BackwardCall), int64_t blocks, int cluster, int bytes,
                          const BackwardCall& call, cudaStream_t stream) {
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kBlockThreads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, call);
}

// All but the tensor maps, whose boxes are a kernel's tiles.
BackwardCall DescribeBackward(const AttentionBackward& arguments);
// Fills those in; false when the driver refuses a tensor.
bool MapTiles(BackwardCall* call, const AttentionBackward& arguments, int tile_queries,
              int tile_keys);

// dK and dV, then dQ; 0, a cudaError_t or kUnsupported.
int LaunchBackwardKeys(const AttentionBackward& arguments, cudaStream_t stream);
int LaunchBackwardQueries(const AttentionBackward& arguments, cudaStream_t stream);

// The first i of `count` with values[i] >= bound; non-decreasing values; called by a whole warp.
__device__ inline int FirstAtLeast(const int32_t* values, int count, int bound) {
  const int lane = threadIdx.x % 32;
  int begin = 0;
  int end = count;
  while (begin < end) {
    const int step = (end - begin + 31) / 32;
    const int last = begin + (lane + 1) * step - 1;  // of this lane's part
    const bool reached = last >= end || __ldg(values + last) >= bound;
    const uint32_t lanes = __ballot_sync(~0u, reached);
    const int part = lanes == 0 ? 32 : __ffs(lanes) - 1;
    const int parts_begin = begin;
    begin = min(end, parts_begin + part * step);
    end = min(end, parts_begin + (part + 1) * step - 1);
    if (part == 32) end = begin;
  }
  return begin;
}

__device__ inline float ExpOfTwo(float exponent) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power;
}

// e^(score − lse); `slope` is the soft cap's derivative.
template <bool kSoftCap>
__device__ inline float Probability(float product, float lse2, const BackwardCall& call,
                                    float* slope) {
  if constexpr (kSoftCap) {
    // tanh.approx is too coarse when multiplied by the cap.
    const float capped = 1.0f - __fdividef(2.0f, ExpOfTwo(product * call.inner) + 1.0f);
    *slope = 1.0f - capped * capped;
    return ExpOfTwo(fmaf(capped, call.outer, -lse2));
  } else {
    *slope = 1.0f;
    return ExpOfTwo(fmaf(product, call.inner, -lse2));
  }
}

// Counts this warp as done with what the barrier guards.
__device__ inline void Release(Mbarrier* empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) empty->Arrive();
}

// Of the four lanes of a quad, each with a value for each: lane t gets the t-th of all, by lane.
__device__ inline void TransposeQuad(uint32_t (&values)[4]) {
  const bool odd = threadIdx.x % 2 != 0;
  const bool high = threadIdx.x % 4 >= 2;
  uint32_t mixed[4];
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t other = __shfl_xor_sync(~0u, odd ? values[i] : values[i + 1], 1);
    mixed[i] = odd ? other : values[i];
    mixed[i + 1] = odd ? values[i + 1] : other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t other = __shfl_xor_sync(~0u, high ? mixed[i] : mixed[i + 2], 2);
    values[i] = high ? other : mixed[i];
    values[i + 2] = high ? mixed[i + 2] : other;
  }
}

// factor · d, a warpgroup's 64 rows, to the rows from `token` on that are before `tokens`.
template <class T, int kWidth>
__device__ inline void StoreRows(const float (&d)[kWidth / 2], float factor, const Rows& rows,
                                 bool wide, int head, int token, int tokens, int width) {
  const int lane = threadIdx.x % 32;
  const int first_row = token + threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + half * 8;
    const int64_t offset = row * rows.token_stride + head * rows.head_stride;
#pragma unroll
    for (int group = 0; group < kWidth / 8; group += 4) {
      uint32_t pairs[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int i = 4 * (group + j) + 2 * half;
        const int column = (group + j) * 8 + lane % 4 * 2;
        const float low = d[i] * factor;
        const float high = d[i + 1] * factor;
        if (wide && row < tokens && column < width) {
          float* to = static_cast<float*>(rows.data) + offset + column;
          *reinterpret_cast<float2*>(to) = float2{low, high};
        }
        pairs[j] = PackPair(low, high, T{});
      }
      if (wide) continue;
      TransposeQuad(pairs);
      const int column = (group + lane % 4) * 8;
      if (row < tokens && column < width) {
        T* to = static_cast<T*>(rows.data) + offset + column;
        *reinterpret_cast<uint4*>(to) = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
      }
    }
  }
}

}  // namespace osler::cuda::sm90
