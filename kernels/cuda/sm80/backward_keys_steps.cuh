// The pieces of backward_keys_kernel.cuh: its shape in shared memory, its walk over queries, and
// what is done to scores between the two products.
#pragma once

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm80/intervals.cuh"
#include "kernels/cuda/sm80/scores.cuh"
#include "kernels/cuda/sm80/warp.cuh"

namespace osler::cuda::sm80 {

// kSmall fits the shared memory of GPUs for graphics, 99 KB a block.
template <int kWidth_, bool kSmall>
struct KeysShape {
  static constexpr int kWidth = kWidth_;
  static constexpr int kBlocks = kWidth <= 64 ? 4 : kWidth <= 128 ? 2 : 1;  // of 16 keys a pair
  static constexpr int kPairs = kSmall || kWidth <= 64 ? 2 : 4;
  static constexpr int kQueries =
      (kWidth <= 64 || kWidth > 128 ? 32 : 64) / (kSmall && kWidth > 64 ? 2 : 1);
  static constexpr int kBlocksPerSm = 1;
  // Keys or values stay in registers where a warp's few rows would cost more loads than products.
  static constexpr bool kHoldsRows = kWidth > 128;
  static constexpr int kThreads = 2 * kPairs * 32;
  static constexpr int kPairKeys = 16 * kBlocks;
  static constexpr int kKeys = kPairs * kPairKeys;
  static constexpr int kKeyBytes = kKeys * kWidth * 2;
  static constexpr int kQueryBytes = kQueries * kWidth * 2;
  static constexpr int kRowBytes = kQueries * 4;
  // Three slots of q, lse, delta, lo and hi, which the second warps need longer; two of grad_out.
  static constexpr int kSlotBytes = kQueryBytes + 4 * kRowBytes;
  static constexpr int kPairBytes = kPairKeys * kQueries * 2;
  static constexpr int kSlots = 2 * kKeyBytes;
  static constexpr int kGradSlots = kSlots + 3 * kSlotBytes;
  static constexpr int kExchange = kGradSlots + 2 * kQueryBytes;
  static constexpr int kSharedBytes = kExchange + kPairs * kPairBytes;

  static __device__ __forceinline__ int NextSlot(int slot) { return slot == 2 ? 0 : slot + 1; }
};

// Starts the copies of one tile of queries and all that belongs to them: the first warps fetch q,
// the second ones the rest.
template <Element kElement, class Shape>
__device__ __forceinline__ void LoadQueries(uint32_t slot, uint32_t grad_slot,
                                            const AttentionBackward& p, int head, int first,
                                            bool second) {
  constexpr int kQueries = Shape::kQueries, kWidth = Shape::kWidth;
  constexpr int kHalf = Shape::kThreads / 2;
  const int thread = threadIdx.x % kHalf;
  if (!second) {
    LoadTile<kQueries, kWidth, kHalf>(slot, OfHead(p.in.q, head), first, p.in.queries, p.in.width,
                                      thread);
    return;
  }
  LoadGradOut<kElement, kQueries, kWidth, kHalf>(grad_slot, p, head, first, thread);
  constexpr int kCopies = kQueries / 4;  // of 4 numbers
  static_assert(4 * kCopies <= kHalf);
  if (thread < 4 * kCopies) {
    const int kind = thread / kCopies, row = thread % kCopies * 4;
    const int64_t padded = PaddedQueries(p.in.queries);
    const float* plane = p.workspace + (kind * p.in.heads + head) * padded;
    const void* ends = kind == 2 ? p.in.lo : p.in.hi;
    const void* from = kind < 2 ? static_cast<const void*>(plane) : ends;
    const int left = kind < 2 ? 4 : min(4, max(0, p.in.queries - first - row));
    CopyAsync(slot + Shape::kQueryBytes + kind * Shape::kRowBytes + row * 4,
              static_cast<const char*>(from) + (first + row) * 4, left * 4);
  }
}

// Fetches the tiles of the queries that see a block's keys, all of one head, then those of the
// next, each into the next slots: three of q, taken in turn, and two of grad_out.
template <Element kElement, class Shape>
struct QueryCopies {
  uint32_t shared;              // of the block
  int begin, end;               // the queries, in each head
  int head, first;              // the tile to be fetched
  int left;                     // tiles to be fetched
  int slot = 0, grad_slot = 0;  // where it goes

  __device__ __forceinline__ QueryCopies(uint32_t shared_address, int begin_query, int end_query,
                                         int first_head, int heads)
      : shared(shared_address),
        begin(begin_query),
        end(end_query),
        head(first_head),
        first(begin),
        left(begin < end ? (end - begin + Shape::kQueries - 1) / Shape::kQueries * heads : 0) {}

  __device__ __forceinline__ void Start(const AttentionBackward& p, bool second) {
    if (left > 0)
      LoadQueries<kElement, Shape>(shared + Shape::kSlots + slot * Shape::kSlotBytes,
                                   shared + Shape::kGradSlots + grad_slot * Shape::kQueryBytes, p,
                                   head, first, second);
    CommitCopies();
    --left;
    first += Shape::kQueries;
    if (first >= end) first = begin, ++head;
    slot = Shape::NextSlot(slot);
    grad_slot ^= 1;
  }
};

// Products k·q, or their tanh under a soft cap, to weights, and those, times the cap's slope, for
// the partner.
template <Element kElement, bool kCapped, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void ToWeights(const float (&scores)[kBlocks][kBlockColumns][4],
                                          uint32_t (&weights)[kBlocks][kBlockColumns / 2][4],
                                          const float* lse, float factor, uint32_t exchange,
                                          int lane) {
  const auto place = [&](int i, int j) { return exchange + ((j * kBlocks + i) * 32 + lane) * 16; };
#pragma unroll
  for (int j = 0; j < kBlockColumns / 2; ++j)
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      uint32_t sent[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 base =
            *reinterpret_cast<const float2*>(lse + 8 * (2 * j + e / 2) + lane % 4 * 2);
        const float* score = scores[i][2 * j + e / 2] + e % 2 * 2;
        const float x = score[0], y = score[1];
        const float wx = Exp2(fmaf(x, factor, -base.x)), wy = Exp2(fmaf(y, factor, -base.y));
        weights[i][j][e] = Pack<kElement>(wx, wy);
        if (kCapped) sent[e] = Pack<kElement>(wx * CapSlope(x), wy * CapSlope(y));
      }
      if (kCapped) StoreShared(place(i, j), sent);
    }
  if constexpr (!kCapped) {  // apart from the exponentials, so that no store stands between those
#pragma unroll
    for (int j = 0; j < kBlockColumns / 2; ++j)
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) StoreShared(place(i, j), weights[i][j]);
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

// The left operands of the first product: a warp's rows of a tile, from shared memory each time or
// held.
template <Element kElement, class Shape>
struct PairRows {
  static constexpr int kWidth = Shape::kWidth;
  LaneAddress<kWidth> tile;
  uint32_t held[Shape::kBlocks][Shape::kHoldsRows ? kWidth / 16 : 1][4];

  __device__ __forceinline__ PairRows(uint32_t rows, int lane)
      : tile(LaneAddress<kWidth>::RowsFirst(rows, lane)) {}
  __device__ __forceinline__ void Hold() {
    if constexpr (Shape::kHoldsRows) LoadOperand(held, tile);
  }
  __device__ __forceinline__ void Multiply(Sums<Shape::kBlocks, Shape::kQueries>& products,
                                           const LaneAddress<kWidth>& queries) const {
    if constexpr (Shape::kHoldsRows) {
      MultiplyTransposed<kElement>(products, held, queries);
    } else {
      MultiplyTransposed<kElement>(products, tile, queries);
    }
  }
};

}  // namespace osler::cuda::sm80
