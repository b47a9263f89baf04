// The gradients of keys and values: a block takes a tile of keys of one key head and walks over all
// queries that see them, of all heads of the group, in a fixed order.
//
// Two warps share 16·kBlocks keys. The first has scores and weights and sums the gradient of the
// values, the second has the weights' gradients and sums that of the keys:
//   weights = exp(k qᵀ · scale − lse)    grad_v += weights · grad_out
//   slopes = weights ∘ (v grad_outᵀ − delta)    grad_k += slopes · q
// All is transposed, keys by queries, so that weights and slopes are born in the registers in which
// the second product takes them. Only the weights change hands, through shared memory.
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm80/intervals.cuh"
#include "kernels/cuda/sm80/launch.cuh"
#include "kernels/cuda/sm80/scores.cuh"
#include "kernels/cuda/sm80/warp.cuh"

namespace osler::cuda::sm80 {

template <int kWidth_>
struct KeysShape {
  static constexpr int kWidth = kWidth_;
  static constexpr int kBlocks = kWidth <= 64 ? 4 : kWidth <= 128 ? 2 : 1;  // of 16 keys a pair
  static constexpr int kPairs = kWidth <= 64 ? 2 : 4;
  static constexpr int kQueries = kWidth <= 64 || kWidth > 128 ? 32 : 64;
  static constexpr int kBlocksPerSm = kWidth <= 64 ? 2 : 1;
  static constexpr int kThreads = 2 * kPairs * 32;
  static constexpr int kPairKeys = 16 * kBlocks;
  static constexpr int kKeys = kPairs * kPairKeys;
  static constexpr int kKeyBytes = kKeys * kWidth * 2;
  static constexpr int kQueryBytes = kQueries * kWidth * 2;
  static constexpr int kRowBytes = kQueries * 4;
  // A stage: q, grad_out, lse, delta, lo, hi.
  static constexpr int kStageBytes = 2 * kQueryBytes + 4 * kRowBytes;
  static constexpr int kPairBytes = kPairKeys * kQueries * 2;
  static constexpr int kSharedBytes =
      2 * kKeyBytes + 2 * kStageBytes + kPairs * kPairBytes + 2 * static_cast<int>(sizeof(int));
};

// The queries of one tile that the copies are about to fetch, or that are fetched.
struct QueryTile {
  int head, first;
};

// One stage of queries and all that belongs to them. Four copies of 4 numbers a thread.
template <Element kElement, class Shape>
__device__ __forceinline__ void LoadQueries(uint32_t stage, const AttentionBackward& p,
                                            const QueryTile& tile) {
  constexpr int kQueries = Shape::kQueries, kWidth = Shape::kWidth;
  LoadTile<kQueries, kWidth, Shape::kThreads>(stage, OfHead(p.in.q, tile.head), tile.first,
                                              p.in.queries, p.in.width);
  LoadGradOut<kElement, kQueries, kWidth, Shape::kThreads>(stage + Shape::kQueryBytes, p, tile.head,
                                                           tile.first);
  constexpr int kCopies = kQueries / 4;
  if (threadIdx.x < 4 * kCopies) {
    const int kind = threadIdx.x / kCopies, row = threadIdx.x % kCopies * 4;
    const int64_t padded = PaddedQueries(p.in.queries);
    const float* plane = p.workspace + (kind * p.in.heads + tile.head) * padded;
    const void* ends = kind == 2 ? p.in.lo : p.in.hi;
    const void* from = kind < 2 ? static_cast<const void*>(plane) : ends;
    const int left = kind < 2 ? 4 : min(4, max(0, p.in.queries - tile.first - row));
    CopyAsync(stage + 2 * Shape::kQueryBytes + kind * Shape::kRowBytes + row * 4,
              static_cast<const char*>(from) + (tile.first + row) * 4, left * 4);
  }
  CommitCopies();
}

// Products k·q to weights, and those, times the soft cap's slope, for the partner.
template <Element kElement, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void ToWeights(float (&scores)[kBlocks][kBlockColumns][4],
                                          uint32_t (&weights)[kBlocks][kBlockColumns / 2][4],
                                          const float* lse, const ScoreScale& scale,
                                          uint32_t exchange, int lane) {
  const bool capped = scale.inner != 0;
#pragma unroll
  for (int j = 0; j < kBlockColumns; j += 2)
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      uint32_t sent[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 base = *reinterpret_cast<const float2*>(lse + 8 * (j + e / 2) + lane % 4 * 2);
        const float x = scores[i][j + e / 2][e % 2 * 2], y = scores[i][j + e / 2][e % 2 * 2 + 1];
        const float wx = Exp2(fmaf(x, scale.factor, -base.x));
        const float wy = Exp2(fmaf(y, scale.factor, -base.y));
        weights[i][j / 2][e] = Pack<kElement>(wx, wy);
        sent[e] = weights[i][j / 2][e];
        // x is −∞ where it is hidden: (1 − x²) · 0 would not be a number.
        if (capped)
          sent[e] = Pack<kElement>(wx > 0 ? wx * (1 - x * x) : 0, wy > 0 ? wy * (1 - y * y) : 0);
      }
      StoreShared(exchange + ((j / 2 * kBlocks + i) * 32 + lane) * 16, sent);
    }
}

// Products v·grad_out to slopes, with the partner's weights.
template <Element kElement, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void ToSlopes(const float (&products)[kBlocks][kBlockColumns][4],
                                         uint32_t (&slopes)[kBlocks][kBlockColumns / 2][4],
                                         const float* delta, uint32_t exchange, int lane) {
#pragma unroll
  for (int j = 0; j < kBlockColumns; j += 2)
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      uint32_t weights[4];
      LoadShared(weights, exchange + ((j / 2 * kBlocks + i) * 32 + lane) * 16);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 base =
            *reinterpret_cast<const float2*>(delta + 8 * (j + e / 2) + lane % 4 * 2);
        const float2 weight = Unpack<kElement>(weights[e]);
        slopes[i][j / 2][e] =
            Pack<kElement>(weight.x * (products[i][j + e / 2][e % 2 * 2] - base.x),
                           weight.y * (products[i][j + e / 2][e % 2 * 2 + 1] - base.y));
      }
    }
}

// The queries [begin, end) that see any of the keys [first, last]: by the first two warps.
__device__ __forceinline__ void FindQueries(const AttentionInput& in, int first, int last,
                                            int* range) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp >= 2) return;
  const int found = warp == 0 ? FirstAbove(in.hi, in.queries, first, lane)
                              : FirstAbove(in.lo, in.queries, last, lane);
  if (lane == 0) range[warp] = found;
}

template <Element kElement, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    BackwardKeysKernel(const __grid_constant__ AttentionBackward p, const ScoreScale scale) {
  constexpr int kWidth = Shape::kWidth, kQueries = Shape::kQueries, kBlocks = Shape::kBlocks;
  extern __shared__ __align__(128) char shared[];
  const uint32_t k_tile = SharedAddress(shared);
  char* const stages = shared + 2 * Shape::kKeyBytes;
  char* const exchanges = stages + 2 * Shape::kStageBytes;
  int* const range = reinterpret_cast<int*>(exchanges + Shape::kPairs * Shape::kPairBytes);

  const int lane = threadIdx.x % 32, pair = threadIdx.x / 32 % Shape::kPairs;
  const bool sums_keys = threadIdx.x / 32 >= Shape::kPairs;  // else it sums values
  const int key_head = blockIdx.x, group = p.in.heads / p.in.key_heads;
  const int first = blockIdx.y * Shape::kKeys, key = first + pair * Shape::kPairKeys;

  LoadTile<Shape::kKeys, kWidth, Shape::kThreads>(k_tile, OfHead(p.in.k, key_head), first,
                                                  p.in.keys, p.in.width);
  LoadTile<Shape::kKeys, kWidth, Shape::kThreads>(
      k_tile + Shape::kKeyBytes, OfHead(p.in.v, key_head), first, p.in.keys, p.in.width);
  FindQueries(p.in, first, first + Shape::kKeys - 1, range);
  __syncthreads();
  const int begin = range[0] / kQueries * kQueries, end = range[1];
  QueryTile fetched = {key_head * group, begin}, tile = fetched;
  const int last_head = key_head * group + group;
  const auto advance = [&](QueryTile& t) {
    t.first += kQueries;
    if (t.first >= end) t = {t.head + 1, begin};
  };
  if (begin < end) LoadQueries<kElement, Shape>(SharedAddress(stages), p, fetched);

  // Both warps of a pair do the same with different tiles.
  const uint32_t rows =
      k_tile + (sums_keys ? Shape::kKeyBytes : 0) + pair * Shape::kPairKeys * kWidth * 2;
  const auto left = LaneAddress<kWidth>::RowsFirst(rows, lane);
  const uint32_t exchange = SharedAddress(exchanges + pair * Shape::kPairBytes);
  Sums<kBlocks, kWidth> sums;
  Clear(sums);
  for (int at = 0; begin < end && tile.head < last_head; at ^= 1, advance(tile)) {
    char* const stage = stages + at * Shape::kStageBytes;
    WaitCopies<0>();
    __syncthreads();  // these queries are there, and those before them are done with
    advance(fetched);
    if (fetched.head < last_head)
      LoadQueries<kElement, Shape>(SharedAddress(stages + (at ^ 1) * Shape::kStageBytes), p,
                                   fetched);
    const auto* numbers = reinterpret_cast<const float*>(stage + 2 * Shape::kQueryBytes);
    const auto* lo = reinterpret_cast<const int32_t*>(numbers + 2 * kQueries);
    const auto* hi = lo + kQueries;
    const int last = min(kQueries, p.in.queries - tile.first) - 1;
    const Seen seen = OfRows(lo, hi, 0, last).Of(key, key + Shape::kPairKeys);
    if (seen == Seen::kNone) continue;
    const uint32_t q_tile = SharedAddress(stage), grad_tile = q_tile + Shape::kQueryBytes;
    Sums<kBlocks, kQueries> products;
    MultiplyTransposed<kElement>(
        products, left, LaneAddress<kWidth>::ColumnsFirst(sums_keys ? grad_tile : q_tile, lane));
    Operand<kBlocks, kQueries> operand;
    if (sums_keys) {
      AwaitPair(1 + pair);
      ToSlopes<kElement>(products, operand, numbers + kQueries, exchange, lane);
    } else {
      if (scale.inner != 0) Cap(products, scale.inner);
      if (seen == Seen::kSome) HideQueries(products, lo, hi, key, lane);
      ToWeights<kElement>(products, operand, numbers, scale, exchange, lane);
      SignalPair(1 + pair);
    }
    MultiplyAdd<kElement>(sums, operand,
                          LaneAddress<kWidth>::RowsFirst(sums_keys ? q_tile : grad_tile, lane));
  }
  WaitCopies<0>();
  if (sums_keys) Scale(sums, p.in.scale);
  StoreRows<kElement>(sums, sums_keys ? p.grad_k : p.grad_v, p.grad_element, key_head, key,
                      p.in.keys, p.in.width, lane);
}

template <Element kElement, int kWidth>
cudaError_t LaunchBackwardKeys(const AttentionBackward& p, cudaStream_t stream) {
  using Shape = KeysShape<kWidth>;
  return Launch<Shape::kThreads, Shape::kSharedBytes>(
      BackwardKeysKernel<kElement, Shape>, dim3(p.in.key_heads, Tiles(p.in.keys, Shape::kKeys)),
      stream, p, MakeScoreScale(p.in));
}

}  // namespace osler::cuda::sm80
