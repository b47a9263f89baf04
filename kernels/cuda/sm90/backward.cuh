// What the backward pass's kernels share: their call, the search in a mask, e^(score − lse), a
// result's rows on their way out.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/entry.cuh"
#include "kernels/cuda/sm90/attention_output.cuh"
#include "kernels/cuda/sm90/barrier.cuh"
#include "kernels/cuda/sm90/tma.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace osler::cuda::sm90 {

// One warpgroup loads, two multiply.
inline constexpr int kBlockThreads = 384;
inline constexpr int kLoadingRegisters = 24;
inline constexpr int kMultiplyingRegisters = 240;

// The two multiplying warpgroups take turns at the tensor cores, `group` 0 first: while the
// products of one run, the other computes its next products' operands. In each of its steps, and
// both make as many, a group takes its turn once and passes it on once.
class Turns {
 public:
  __device__ explicit Turns(int group)
      : group_(group), own_(kFirstBarrier + group), other_(kFirstBarrier + 1 - group) {
    if (group == 1) NamedArrive(other_, 256);
  }
  __device__ void Take() {
    NamedSync(own_, 256);
    held_ = true;
  }
  // The same after the work that ends in these values, which ptxas would else move behind the
  // barrier: its number hangs on them, though threadIdx.y is always 0.
  template <int kCount>
  __device__ void TakeAfter(const uint32_t (&results)[kCount]) {
    uint32_t all = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) all |= results[i];
    NamedSync(own_ + static_cast<int>(all & threadIdx.y), 256);
    held_ = true;
  }
  __device__ void Pass() {
    if (held_) NamedArrive(other_, 256);
    held_ = false;
  }
  // In a step without products.
  __device__ void Skip() {
    Pass();
    Take();
    Pass();
  }
  // After the last step.
  __device__ void End() {
    if (group_ == 0) Pass();
  }

 private:
  static constexpr int kFirstBarrier = 1;
  int group_, own_, other_;
  bool held_ = false;
};
// The same calls where they do not.
struct NoTurns {
  __device__ explicit NoTurns(int /*group*/) {}
  template <int kCount>
  __device__ void TakeAfter(const uint32_t (&/*results*/)[kCount]) {}
  __device__ void Pass() {}
  __device__ void Skip() {}
  __device__ void End() {}
};

struct BackwardCall {
  CUtensorMap q, k, v, grad_out;
  OutputRows grad_q, grad_k, grad_v;
  const int32_t* lo;
  const int32_t* hi;
  const float* lse2;   // [heads][padded_queries], lse · log2(e); +∞ for rows that see nothing
  const float* delta;  // [heads][padded_queries]
  int32_t queries, padded_queries, keys, heads, key_heads, width;
  float scale;
  // log2(e) · score = product · inner, or outer · tanh(product · inner / (2 · log2(e))).
  float inner, outer;
};

// A launch of one of the kernels, with so much shared memory; 0 or a cudaError_t.
inline int LaunchBackward(void (*kernel)(BackwardCall), int64_t blocks, int bytes,
                          const BackwardCall& call, cudaStream_t stream) {
  return LaunchWithShared(kernel, static_cast<unsigned>(blocks), kBlockThreads, bytes, stream,
                          call);
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

// e^(score − lse); `slope` is the soft cap's derivative.
template <bool kSoftCap>
__device__ inline float Probability(float product, float lse2, const BackwardCall& call,
                                    float* slope) {
  if constexpr (kSoftCap) {
    // tanh.approx is too coarse when multiplied by the cap.
    const float capped = 1.0f - __fdividef(2.0f, Exp2(product * call.inner) + 1.0f);
    *slope = 1.0f - capped * capped;
    return Exp2(fmaf(capped, call.outer, -lse2));
  } else {
    *slope = 1.0f;
    return Exp2(fmaf(product, call.inner, -lse2));
  }
}

// Counts this warp as done with what the barrier guards.
__device__ inline void Release(Mbarrier* empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) empty->Arrive();
}

// factor · d, a warpgroup's 64 rows, to the rows from `first` on that are before `end`.
template <class T, int kValues>
__device__ inline void StoreGradients(const float (&d)[kValues], float factor,
                                      const OutputRows& rows, int head, int first, int end,
                                      int width) {
  const int row = first + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  StoreRows<T>(rows, d, {row, row + 8}, end, head, {factor, factor}, width);
}

}  // namespace osler::cuda::sm90
