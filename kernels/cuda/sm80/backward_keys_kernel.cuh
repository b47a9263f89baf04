// The gradients of keys and values: a block takes a tile of keys of one key head and walks over all
// queries that see them, of all heads of the group, in a fixed order.
//
// Two warps share 16·kBlocks keys. The first has scores and weights and sums the gradient of the
// values, the second has the weights' gradients and sums that of the keys:
//   weights = exp(k qᵀ · scale − lse)    grad_v += weights · grad_out
//   slopes = weights ∘ (v grad_outᵀ − delta)    grad_k += slopes · q
// All is transposed, keys by queries, so that weights and slopes are born in the registers in which
// the second product takes them. Only the weights change hands, through shared memory.
//
// The second warp is half a tile behind: between two meetings of the block, the first does both
// products of a tile, the second its second product of the tile before and then its first of this
// one. So one of the two always multiplies while the other works on its scores, and the weights are
// there when the second asks for them.
#pragma once

#include "kernels/cuda/sm80/backward_keys_steps.cuh"
#include "kernels/cuda/sm80/launch.cuh"

namespace osler::cuda::sm80 {

template <Element kElement, bool kCapped, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    BackwardKeysKernel(const __grid_constant__ AttentionBackward p, const ScoreScale scale) {
  constexpr int kWidth = Shape::kWidth, kQueries = Shape::kQueries, kBlocks = Shape::kBlocks;
  extern __shared__ __align__(128) char shared[];
  const uint32_t k_tile = SharedAddress(shared);
  int* const range = reinterpret_cast<int*>(shared + Shape::kExchange);

  const int lane = threadIdx.x % 32, pair = threadIdx.x / 32 % Shape::kPairs;
  const bool second = threadIdx.x / 32 >= Shape::kPairs;
  const int key_head = blockIdx.x, group = p.in.heads / p.in.key_heads;
  const int first = blockIdx.y * Shape::kKeys, key = first + pair * Shape::kPairKeys;

  LoadTile<Shape::kKeys, kWidth, Shape::kThreads>(k_tile, OfHead(p.in.k, key_head), first,
                                                  p.in.keys, p.in.width);
  LoadTile<Shape::kKeys, kWidth, Shape::kThreads>(
      k_tile + Shape::kKeyBytes, OfHead(p.in.v, key_head), first, p.in.keys, p.in.width);
  FindQueries(p.in, first, first + Shape::kKeys - 1, range);
  __syncthreads();
  QueryCopies<kElement, Shape> copies(k_tile, range[0] / kQueries * kQueries, range[1],
                                      key_head * group, group);
  int left = copies.left, next_query = copies.begin;
  copies.Start(p, second);

  PairRows<kElement, Shape> rows(
      k_tile + (second ? Shape::kKeyBytes : 0) + pair * Shape::kPairKeys * kWidth * 2, lane);
  const uint32_t exchange = k_tile + Shape::kExchange + pair * Shape::kPairBytes;
  Sums<kBlocks, kWidth> sums;
  Clear(sums);
  if (Shape::kHoldsRows) {
    WaitCopies<0>();
    __syncthreads();
    rows.Hold();
  }
  Sums<kBlocks, kQueries> products;
  bool sent = false;  // the first warp's weights went to the second one
  bool late = false;  // the second warp has products of the tile before
  for (;; --left) {
    WaitCopies<0>();
    // The next queries are there, the first warps are done with those before them, and the second
    // warps with their grad_out.
    __syncthreads();
    const int query = next_query;
    next_query = copies.first;
    copies.Start(p, second);
    if (second && late) {
      const char* const before = shared + Shape::kSlots + copies.slot * Shape::kSlotBytes;
      const auto* delta = reinterpret_cast<const float*>(before + Shape::kQueryBytes) + kQueries;
      Operand<kBlocks, kQueries> slopes;
      ToSlopes<kElement>(products, slopes, delta, exchange, lane);
      SignalPair(1 + pair);
      MultiplyAdd<kElement>(sums, slopes,
                            LaneAddress<kWidth>::RowsFirst(SharedAddress(before), lane));
    }
    if (left <= 0) break;
    const char* const slot =
        shared + Shape::kSlots + Shape::NextSlot(copies.slot) * Shape::kSlotBytes;
    const uint32_t grad_tile = k_tile + Shape::kGradSlots + copies.grad_slot * Shape::kQueryBytes;
    const auto* lse = reinterpret_cast<const float*>(slot + Shape::kQueryBytes);
    const auto* lo = reinterpret_cast<const int32_t*>(lse + 2 * kQueries);
    const auto* hi = lo + kQueries;
    const int last = min(kQueries, p.in.queries - query) - 1;
    const Seen seen = OfRows(lo, hi, 0, last).Of(key, key + Shape::kPairKeys);
    late = seen != Seen::kNone;
    if (!late) continue;
    rows.Multiply(products, LaneAddress<kWidth>::ColumnsFirst(
                                second ? grad_tile : SharedAddress(slot), lane));
    if (second) continue;
    if (kCapped) Cap(products, scale.inner);
    if (seen == Seen::kSome) HideQueries(products, lo, hi, key, lane);
    if (sent) AwaitPair(1 + pair);
    sent = true;
    Operand<kBlocks, kQueries> weights;
    ToWeights<kElement, kCapped>(products, weights, lse, scale.factor, exchange, lane);
    MultiplyAdd<kElement>(sums, weights, LaneAddress<kWidth>::RowsFirst(grad_tile, lane));
  }
  if (sent) AwaitPair(1 + pair);
  if (second) Scale(sums, p.in.scale);
  StoreRows<kElement>(sums, second ? p.grad_k : p.grad_v, p.grad_element, key_head, key, p.in.keys,
                      p.in.width, lane);
}

template <Element kElement, class Shape>
cudaError_t LaunchKeysShape(const AttentionBackward& p, cudaStream_t stream) {
  return Launch<Shape::kThreads, Shape::kSharedBytes>(
      p.in.soft_cap == 0 ? BackwardKeysKernel<kElement, false, Shape>
                         : BackwardKeysKernel<kElement, true, Shape>,
      dim3(p.in.key_heads, Tiles(p.in.keys, Shape::kKeys)), stream, p, MakeScoreScale(p.in));
}

template <Element kElement, int kWidth>
cudaError_t LaunchBackwardKeys(const AttentionBackward& p, cudaStream_t stream) {
  using Large = KeysShape<kWidth, false>;
  using Small = KeysShape<kWidth, (kWidth > 64)>;
  static_assert(Large::kSharedBytes <= 163 * 1024 && Small::kSharedBytes <= 99 * 1024);
  return SharedBytesPerBlock() >= Large::kSharedBytes ? LaunchKeysShape<kElement, Large>(p, stream)
                                                      : LaunchKeysShape<kElement, Small>(p, stream);
}

}  // namespace osler::cuda::sm80
