// The gradients of queries: a block takes a tile of queries of one head and walks over the keys
// they see.
//   weights = exp(q kᵀ · scale − lse)    slopes = weights ∘ (grad_out vᵀ − delta)
//   grad_q += slopes · k
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm80/intervals.cuh"
#include "kernels/cuda/sm80/launch.cuh"
#include "kernels/cuda/sm80/scores.cuh"
#include "kernels/cuda/sm80/warp.cuh"

namespace osler::cuda::sm80 {

template <int kWidth_>
struct QueriesShape {
  static constexpr int kWidth = kWidth_;
  static constexpr int kBlocks = kWidth <= 128 ? 2 : 1;  // of 16 queries a warp
  static constexpr int kKeys = kWidth <= 64 ? 96 : kWidth <= 128 ? 64 : 32;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kWarpQueries = 16 * kBlocks;
  static constexpr int kQueries = kWarps * kWarpQueries;
  static constexpr int kQueryBytes = kQueries * kWidth * 2;
  static constexpr int kKeyBytes = kKeys * kWidth * 2;
  static constexpr int kRowBytes = kQueries * 4;
  // q, grad_out, keys, values, lse, delta, lo, hi.
  static constexpr int kRows = 2 * kQueryBytes + 2 * kKeyBytes;
  static constexpr int kSharedBytes = kRows + 4 * kRowBytes;
};

// Pairs of neighbours in a row, as 16-bit elements, of a lane's share of sums.
template <int kBlocks, int kColumns>
using Pairs = uint32_t[kBlocks][kColumns / 8][2];

// products − delta: as elements they leave registers for the scores, and cost a slope no more
// accuracy than its own rounding does.
template <Element kElement, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void Subtract(const float (&products)[kBlocks][kBlockColumns][4],
                                         const float* delta,
                                         uint32_t (&differences)[kBlocks][kBlockColumns][2],
                                         int lane) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float base = delta[16 * i + 8 * half + lane / 4];
#pragma unroll
      for (int j = 0; j < kBlockColumns; ++j)
        differences[i][j][half] =
            Pack<kElement>(products[i][j][2 * half] - base, products[i][j][2 * half + 1] - base);
    }
}

// Products q·k, or their tanh under a soft cap, to weights, times the cap's slope and differences.
template <Element kElement, bool kCapped, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void ToSlopes(const float (&scores)[kBlocks][kBlockColumns][4],
                                         const uint32_t (&differences)[kBlocks][kBlockColumns][2],
                                         const float* lse, float factor,
                                         uint32_t (&slopes)[kBlocks][kBlockColumns / 2][4],
                                         int lane) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float top = lse[16 * i + 8 * half + lane / 4];
#pragma unroll
      for (int j = 0; j < kBlockColumns; ++j) {
        const float2 difference = Unpack<kElement>(differences[i][j][half]);
        const float x = scores[i][j][2 * half], y = scores[i][j][2 * half + 1];
        float wx = Exp2(fmaf(x, factor, -top)), wy = Exp2(fmaf(y, factor, -top));
        if (kCapped) wx *= CapSlope(x), wy *= CapSlope(y);
        slopes[i][j / 2][j % 2 * 2 + half] = Pack<kElement>(wx * difference.x, wy * difference.y);
      }
    }
}

template <Element kElement, bool kCapped, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    BackwardQueriesKernel(const __grid_constant__ AttentionBackward p, const ScoreScale scale) {
  constexpr int kWidth = Shape::kWidth, kKeys = Shape::kKeys, kBlocks = Shape::kBlocks;
  extern __shared__ __align__(128) char shared[];
  const uint32_t q_tile = SharedAddress(shared), grad_tile = q_tile + Shape::kQueryBytes;
  const uint32_t k_tile = grad_tile + Shape::kQueryBytes, v_tile = k_tile + Shape::kKeyBytes;
  auto* const lse = reinterpret_cast<float*>(shared + Shape::kRows);
  float* const delta = lse + Shape::kQueries;
  auto* const lo = reinterpret_cast<int32_t*>(delta + Shape::kQueries);
  int32_t* const hi = lo + Shape::kQueries;

  const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * Shape::kWarpQueries;
  const int head = blockIdx.x, key_head = head / (p.in.heads / p.in.key_heads);
  // Under a causal mask the last tiles have the most to do: they go first.
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Shape::kQueries;
  int key = p.in.lo[first] / kKeys * kKeys;
  const int key_end = p.in.hi[min(first + Shape::kQueries, p.in.queries) - 1];
  const auto load = [&](uint32_t tile, const Rows& rows, int from) {
    if (from < key_end)
      LoadTile<kKeys, kWidth, Shape::kThreads>(tile, OfHead(rows, key_head), from, p.in.keys,
                                               p.in.width);
    CommitCopies();
  };

  LoadTile<Shape::kQueries, kWidth, Shape::kThreads>(q_tile, OfHead(p.in.q, head), first,
                                                     p.in.queries, p.in.width);
  LoadGradOut<kElement, Shape::kQueries, kWidth, Shape::kThreads>(grad_tile, p, head, first);
  load(v_tile, p.in.v, key);
  StageIntervals<Shape::kQueries>(p.in, first, lo, hi);
  const int64_t padded = PaddedQueries(p.in.queries);
  for (int row = threadIdx.x; row < Shape::kQueries; row += Shape::kThreads) {
    lse[row] = p.workspace[head * padded + first + row];
    delta[row] = p.workspace[(p.in.heads + head) * padded + first + row];
  }
  WaitCopies<0>();
  __syncthreads();
  load(k_tile, p.in.k, key);
  const auto q_lane = LaneAddress<kWidth>::RowsFirst(q_tile + warp_row * kWidth * 2, lane);
  const auto k_columns = LaneAddress<kWidth>::ColumnsFirst(k_tile, lane);
  const auto k_rows = LaneAddress<kWidth>::RowsFirst(k_tile, lane);

  Sums<kBlocks, kWidth> sums;
  Clear(sums);
  for (; key < key_end; key += kKeys) {
    const Seen seen =
        OfRows(lo, hi, warp_row, warp_row + Shape::kWarpQueries - 1).Of(key, key + kKeys);
    Pairs<kBlocks, kKeys> differences;
    if (seen != Seen::kNone) {
      Sums<kBlocks, kKeys> products;
      MultiplyTransposed<kElement>(products, q_lane.Plus(Shape::kQueryBytes),
                                   k_columns.Plus(Shape::kKeyBytes));
      Subtract<kElement>(products, delta + warp_row, differences, lane);
    }
    WaitCopies<0>();
    __syncthreads();  // the keys are there, and the values are done with
    load(v_tile, p.in.v, key + kKeys);
    if (seen != Seen::kNone) {
      Sums<kBlocks, kKeys> scores;
      MultiplyTransposed<kElement>(scores, q_lane, k_columns);
      if (kCapped) Cap(scores, scale.inner);
      if (seen == Seen::kSome) HideKeys(scores, lo + warp_row, hi + warp_row, key, lane);
      Operand<kBlocks, kKeys> slopes;
      ToSlopes<kElement, kCapped>(scores, differences, lse + warp_row, scale.factor, slopes, lane);
      MultiplyAdd<kElement>(sums, slopes, k_rows);
    }
    WaitCopies<0>();
    __syncthreads();  // the next values are there, and the keys are done with
    load(k_tile, p.in.k, key + kKeys);
  }
  Scale(sums, p.in.scale);
  StoreRows<kElement>(sums, p.grad_q, p.grad_element, head, first + warp_row, p.in.queries,
                      p.in.width, lane);
}

template <Element kElement, int kWidth>
cudaError_t LaunchBackwardQueries(const AttentionBackward& p, cudaStream_t stream) {
  using Shape = QueriesShape<kWidth>;
  return Launch<Shape::kThreads, Shape::kSharedBytes>(
      p.in.soft_cap == 0 ? BackwardQueriesKernel<kElement, false, Shape>
                         : BackwardQueriesKernel<kElement, true, Shape>,
      dim3(p.in.heads, Tiles(p.in.queries, Shape::kQueries)), stream, p, MakeScoreScale(p.in));
}

}  // namespace osler::cuda::sm80
