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
  static constexpr int kKeys = kWidth <= 64 ? 64 : 32;
  // Two stages of values where two blocks still share an SM.
  static constexpr int kValueStages = kWidth <= 128 ? 2 : 1;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kWarpQueries = 16 * kBlocks;
  static constexpr int kQueries = kWarps * kWarpQueries;
  static constexpr int kQueryBytes = kQueries * kWidth * 2;
  static constexpr int kKeyBytes = kKeys * kWidth * 2;
  static constexpr int kRowBytes = kQueries * 4;
  // q, grad_out, stages of keys and of values, lse, delta, lo, hi.
  static constexpr int kSharedBytes =
      2 * kQueryBytes + (2 + kValueStages) * kKeyBytes + 4 * kRowBytes;
};

// Products q·k to weights times the soft cap's slope, times (products grad_out·v − delta).
template <int kBlocks, int kBlockColumns>
__device__ __forceinline__ void ToSlopes(float (&scores)[kBlocks][kBlockColumns][4],
                                         const float (&products)[kBlocks][kBlockColumns][4],
                                         const float* lse, const float* delta,
                                         const ScoreScale& scale, int lane) {
  const bool capped = scale.inner != 0;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = 16 * i + 8 * half + lane / 4;
      const float top = lse[row], base = delta[row];
#pragma unroll
      for (int j = 0; j < kBlockColumns; ++j)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const float x = scores[i][j][e];
          const float weight = Exp2(fmaf(x, scale.factor, -top));
          const float slope = weight * (products[i][j][e] - base);
          // x is −∞ where it is hidden: (1 − x²) · 0 would not be a number.
          scores[i][j][e] = capped && weight > 0 ? slope * (1 - x * x) : slope;
        }
    }
}

template <Element kElement, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    BackwardQueriesKernel(const __grid_constant__ AttentionBackward p, const ScoreScale scale) {
  constexpr int kWidth = Shape::kWidth, kKeys = Shape::kKeys, kBlocks = Shape::kBlocks;
  extern __shared__ __align__(128) char shared[];
  const uint32_t q_tile = SharedAddress(shared), grad_tile = q_tile + Shape::kQueryBytes;
  const uint32_t k_tiles = grad_tile + Shape::kQueryBytes;
  const uint32_t v_tiles = k_tiles + 2 * Shape::kKeyBytes;
  constexpr int kTiles = 2 * Shape::kQueryBytes + (2 + Shape::kValueStages) * Shape::kKeyBytes;
  auto* const lse = reinterpret_cast<float*>(shared + kTiles);
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
  load(k_tiles, p.in.k, key);
  load(v_tiles, p.in.v, key);
  StageIntervals<Shape::kQueries>(p.in, first, lo, hi);
  const int64_t padded = PaddedQueries(p.in.queries);
  for (int row = threadIdx.x; row < Shape::kQueries; row += Shape::kThreads) {
    lse[row] = p.workspace[head * padded + first + row];
    delta[row] = p.workspace[(p.in.heads + head) * padded + first + row];
  }
  const auto q_lane = LaneAddress<kWidth>::RowsFirst(q_tile + warp_row * kWidth * 2, lane);
  const auto grad_lane = LaneAddress<kWidth>::RowsFirst(grad_tile + warp_row * kWidth * 2, lane);

  Sums<kBlocks, kWidth> sums;
  Clear(sums);
  for (int at = 0; key < key_end; key += kKeys, at ^= 1) {
    WaitCopies<0>();
    __syncthreads();  // these keys and values are there, and those before them are done with
    const uint32_t k_tile = k_tiles + at * Shape::kKeyBytes;
    const uint32_t v_tile = v_tiles + (Shape::kValueStages == 2 ? at * Shape::kKeyBytes : 0);
    load(k_tiles + (at ^ 1) * Shape::kKeyBytes, p.in.k, key + kKeys);
    if (Shape::kValueStages == 2) load(v_tiles + (at ^ 1) * Shape::kKeyBytes, p.in.v, key + kKeys);
    const Seen seen =
        OfRows(lo, hi, warp_row, warp_row + Shape::kWarpQueries - 1).Of(key, key + kKeys);
    Sums<kBlocks, kKeys> scores, products;
    if (seen != Seen::kNone) {
      MultiplyTransposed<kElement>(scores, q_lane, LaneAddress<kWidth>::ColumnsFirst(k_tile, lane));
      MultiplyTransposed<kElement>(products, grad_lane,
                                   LaneAddress<kWidth>::ColumnsFirst(v_tile, lane));
    }
    if (Shape::kValueStages == 1) {
      __syncthreads();  // the values are done with
      load(v_tile, p.in.v, key + kKeys);
    }
    if (seen == Seen::kNone) continue;
    if (scale.inner != 0) Cap(scores, scale.inner);
    if (seen == Seen::kSome) HideKeys(scores, lo + warp_row, hi + warp_row, key, lane);
    ToSlopes(scores, products, lse + warp_row, delta + warp_row, scale, lane);
    Operand<kBlocks, kKeys> slopes;
    ToOperand<kElement>(scores, slopes);
    MultiplyAdd<kElement>(sums, slopes, LaneAddress<kWidth>::RowsFirst(k_tile, lane));
  }
  WaitCopies<0>();
  Scale(sums, p.in.scale);
  StoreRows<kElement>(sums, p.grad_q, p.grad_element, head, first + warp_row, p.in.queries,
                      p.in.width, lane);
}

template <Element kElement, int kWidth>
cudaError_t LaunchBackwardQueries(const AttentionBackward& p, cudaStream_t stream) {
  using Shape = QueriesShape<kWidth>;
  return Launch<Shape::kThreads, Shape::kSharedBytes>(
      BackwardQueriesKernel<kElement, Shape>,
      dim3(p.in.heads, Tiles(p.in.queries, Shape::kQueries)), stream, p, MakeScoreScale(p.in));
}

}  // namespace osler::cuda::sm80
