// The forward pass: a block takes a tile of queries of one head and walks over the keys they see,
// with an online softmax. Dao, FlashAttention-2 (arXiv 2307.08691), algorithm 1.
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm80/intervals.cuh"
#include "kernels/cuda/sm80/launch.cuh"
#include "kernels/cuda/sm80/scores.cuh"
#include "kernels/cuda/sm80/warp.cuh"

namespace osler::cuda::sm80 {

// Wide heads leave registers for 16 rows a warp; narrow ones for 128 keys at once.
template <int kWidth_>
struct ForwardShape {
  static constexpr int kWidth = kWidth_;
  static constexpr int kBlocks = kWidth <= 128 ? 2 : 1;  // of 16 queries a warp
  static constexpr int kKeys = kWidth <= 64 ? 128 : 64;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kWarpQueries = 16 * kBlocks;
  static constexpr int kQueries = kWarps * kWarpQueries;
  static constexpr int kQueryBytes = kQueries * kWidth * 2;
  static constexpr int kKeyBytes = kKeys * kWidth * 2;
  static constexpr int kSharedBytes =
      kQueryBytes + 2 * kKeyBytes + 2 * kQueries * static_cast<int>(sizeof(int32_t));
};

// Per row of a lane: the largest score so far and this lane's part of the sum of exponentials.
template <int kBlocks>
struct Softmax {
  float top[2 * kBlocks], sum[2 * kBlocks];

  // For a row that has seen nothing yet, −∞ − −∞ would not be a number.
  static __device__ __forceinline__ float Base(float most, float factor) {
    return most == -INFINITY ? 0 : most * factor;
  }

  __device__ __forceinline__ Softmax() {
#pragma unroll
    for (int row = 0; row < 2 * kBlocks; ++row) top[row] = -INFINITY, sum[row] = 0;
  }

  // Takes the largest scores so far, and brings what was summed before to them.
  template <int kBlockKeys, int kBlockWidth>
  __device__ __forceinline__ void Raise(const float (&scores)[kBlocks][kBlockKeys][4],
                                        float (&out)[kBlocks][kBlockWidth][4], float factor) {
    float shrink[2 * kBlocks];
    bool moved = false;
#pragma unroll
    for (int row = 0; row < 2 * kBlocks; ++row) {
      const auto& line = scores[row / 2];
      const int at = row % 2 * 2;
      float most = top[row];
#pragma unroll
      for (int j = 0; j < kBlockKeys; ++j) most = fmaxf(most, fmaxf(line[j][at], line[j][at + 1]));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
      shrink[row] = Exp2(top[row] * factor - Base(most, factor));
      moved = moved || most > top[row];
      top[row] = most;
    }
    if (!__any_sync(~0u, moved)) return;  // as for most tiles but the first
#pragma unroll
    for (int row = 0; row < 2 * kBlocks; ++row) {
      sum[row] *= shrink[row];
#pragma unroll
      for (int j = 0; j < kBlockWidth; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) out[row / 2][j][row % 2 * 2 + e] *= shrink[row];
    }
  }

  // Scores become weights.
  template <int kBlockKeys>
  __device__ __forceinline__ void Weigh(float (&scores)[kBlocks][kBlockKeys][4], float factor) {
#pragma unroll
    for (int row = 0; row < 2 * kBlocks; ++row) {
      const float base = Base(top[row], factor);
      float added = 0;
#pragma unroll
      for (int j = 0; j < kBlockKeys; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[row / 2][j][row % 2 * 2 + e];
          score = Exp2(fmaf(score, factor, -base));
          added += score;
        }
      sum[row] += added;
    }
  }

  // Divides by the sums and leaves them as log-sum-exps.
  template <int kBlockWidth>
  __device__ __forceinline__ void Finish(float (&out)[kBlocks][kBlockWidth][4], float factor) {
    constexpr float kLog2 = 0.6931471805599453f;
#pragma unroll
    for (int row = 0; row < 2 * kBlocks; ++row) {
      float total = sum[row];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const float inverse = total > 0 ? 1 / total : 0;
      sum[row] = total > 0 ? fmaf(top[row], factor, log2f(total)) * kLog2 : -INFINITY;
#pragma unroll
      for (int j = 0; j < kBlockWidth; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) out[row / 2][j][row % 2 * 2 + e] *= inverse;
    }
  }
};

template <Element kElement, bool kCapped, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    ForwardKernel(const __grid_constant__ AttentionForward p, const ScoreScale scale) {
  constexpr int kWidth = Shape::kWidth, kKeys = Shape::kKeys, kBlocks = Shape::kBlocks;
  extern __shared__ __align__(128) char shared[];
  const uint32_t q_tile = SharedAddress(shared);
  const uint32_t k_tile = q_tile + Shape::kQueryBytes, v_tile = k_tile + Shape::kKeyBytes;
  auto* lo = reinterpret_cast<int32_t*>(shared + Shape::kQueryBytes + 2 * Shape::kKeyBytes);
  int32_t* hi = lo + Shape::kQueries;

  const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * Shape::kWarpQueries;
  const int head = blockIdx.x, key_head = head / (p.in.heads / p.in.key_heads);
  // Under a causal mask the last tiles have the most to do: they go first.
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Shape::kQueries;
  int key = p.in.lo[first] / kKeys * kKeys;
  const int key_end = p.in.hi[min(first + Shape::kQueries, p.in.queries) - 1];
  const auto load = [&](uint32_t tile, const Rows& rows, int from) {
    LoadTile<kKeys, kWidth, Shape::kThreads>(tile, OfHead(rows, key_head), from, p.in.keys,
                                             p.in.width);
    CommitCopies();
  };

  LoadTile<Shape::kQueries, kWidth, Shape::kThreads>(q_tile, OfHead(p.in.q, head), first,
                                                     p.in.queries, p.in.width);
  if (key < key_end) load(k_tile, p.in.k, key);
  StageIntervals<Shape::kQueries>(p.in, first, lo, hi);
  __syncthreads();
  const auto q_lane = LaneAddress<kWidth>::RowsFirst(q_tile + warp_row * kWidth * 2, lane);
  const auto k_lane = LaneAddress<kWidth>::ColumnsFirst(k_tile, lane);
  const auto v_lane = LaneAddress<kWidth>::RowsFirst(v_tile, lane);

  Sums<kBlocks, kWidth> out;
  Clear(out);
  Softmax<kBlocks> softmax;
  for (; key < key_end; key += kKeys) {
    const Seen seen =
        OfRows(lo, hi, warp_row, warp_row + Shape::kWarpQueries - 1).Of(key, key + kKeys);
    Sums<kBlocks, kKeys> scores;
    WaitCopies<0>();
    __syncthreads();  // these keys are there, and the values before them are done with
    load(v_tile, p.in.v, key);
    if (seen != Seen::kNone) MultiplyTransposed<kElement>(scores, q_lane, k_lane);
    WaitCopies<0>();
    __syncthreads();  // the values are there, and the keys are done with
    if (key + kKeys < key_end) load(k_tile, p.in.k, key + kKeys);
    if (seen == Seen::kNone) continue;
    if (kCapped) Cap(scores, scale.inner);
    if (seen == Seen::kSome) HideKeys(scores, lo + warp_row, hi + warp_row, key, lane);
    softmax.Raise(scores, out, scale.factor);
    softmax.Weigh(scores, scale.factor);
    Operand<kBlocks, kKeys> weights;
    ToOperand<kElement>(scores, weights);
    MultiplyAdd<kElement>(out, weights, v_lane);
  }
  WaitCopies<0>();

  softmax.Finish(out, scale.factor);
  const int row = first + warp_row;
  StoreRows<kElement>(out, p.out, p.out_element, head, row, p.in.queries, p.in.width, lane);
#pragma unroll
  for (int i = 0; i < 2 * kBlocks; ++i) {
    const int query = row + 8 * i + lane / 4;
    if (lane % 4 == 0 && query < p.in.queries)
      p.lse[static_cast<int64_t>(query) * p.in.heads + head] = softmax.sum[i];
  }
}

template <Element kElement, int kWidth>
cudaError_t LaunchForward(const AttentionForward& p, cudaStream_t stream) {
  using Shape = ForwardShape<kWidth>;
  return Launch<Shape::kThreads, Shape::kSharedBytes>(
      p.in.soft_cap == 0 ? ForwardKernel<kElement, false, Shape>
                         : ForwardKernel<kElement, true, Shape>,
      dim3(p.in.heads, Tiles(p.in.queries, Shape::kQueries)), stream, p, MakeScoreScale(p.in));
}

}  // namespace osler::cuda::sm80
