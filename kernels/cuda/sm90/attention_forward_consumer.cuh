// A consumer warpgroup of a ForwardKernel: 64 queries of each tile.
#pragma once

#include "kernels/cuda/sm90/attention_forward_softmax.cuh"
#include "kernels/cuda/sm90/attention_forward_work.cuh"
#include "kernels/cuda/sm90/attention_output.cuh"
#include "kernels/cuda/sm90/barrier.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace osler::cuda::sm90 {

// The softmax's values of a key tile as an operand.
template <class Traits>
using Weights = uint32_t[Traits::kKeys / 4];

// What a consumer warpgroup keeps over a query tile.
template <class Traits>
struct ConsumerState {
  float out[Traits::kWidth / 2];
  float scores[Traits::kKeys / 2];
  SoftmaxRows rows;
  int inside_lo, inside_hi;  // the keys that all 64 queries see
};

// The turns of the consumer groups at issuing products: named barriers 1 to kGroups; FinishOut has
// the next kGroups.
template <class Traits>
struct Turns {
  int group;
  __device__ void Begin() const { NamedSync(1 + group, 256); }
  __device__ void End() const { NamedArrive(1 + (group + 1) % Traits::kGroups, 256); }
};

template <class Traits>
__device__ inline void ArriveOnceAWarp(Mbarrier& barrier) {
  if (threadIdx.x % 32 == 0) barrier.Arrive();
}

template <class Traits>
__device__ inline void IssueScores(ConsumerState<Traits>& state, typename Traits::Shared& shared,
                                   const RingPosition<Traits::kStages>& k, int group) {
  WgmmaFence();
  MultiplyRows<Traits::kKeys, Traits::kWidth, typename Traits::T>(
      state.scores, shared.q + group * 64 * 128, Traits::kQueries, shared.k[k.stage], Traits::kKeys,
      false);
  WgmmaCommit();
}

template <class Traits>
__device__ inline void IssueOut(ConsumerState<Traits>& state, const Weights<Traits>& weights,
                                typename Traits::Shared& shared,
                                const RingPosition<Traits::kStages>& v) {
  WgmmaFence();
  MultiplyColumns<Traits::kWidth, Traits::kKeys, typename Traits::T>(
      state.out, weights, shared.v[v.stage], Traits::kKeys, true);
  WgmmaCommit();
}

// The softmax over scores of keys from `key` on.
template <class Traits>
__device__ inline void WeighScores(ConsumerState<Traits>& state, const ForwardParameters& p,
                                   int key, float (&correction)[2]) {
  if constexpr (Traits::kSoftCap) CapScores(state.scores, p.scale);
  if (key < state.inside_lo || key + Traits::kKeys > state.inside_hi) {
    MaskScores(state.scores, state.rows, key + 2 * (threadIdx.x % 4));
  }
  SoftmaxStep(state.scores, state.rows, correction, Traits::kSoftCap ? 1.f : p.scale.to_log2);
}

template <class Traits>
__device__ inline void RescaleOut(ConsumerState<Traits>& state, const float (&correction)[2]) {
#pragma unroll
  for (int i = 0; i < Traits::kWidth / 2; ++i) state.out[i] *= correction[(i / 2) % 2];
}

// Waits for the product that is adding to `out`, and rescales what it gave where a row needs it.
// The vote takes in what the softmax ends with: without it the compiler puts the wait before the
// exponentials that it is to hide. It is the whole warpgroup's, as only such may branch around
// wgmma.
template <class Traits>
__device__ inline void FinishOut(ConsumerState<Traits>& state, const float (&correction)[2],
                                 int group) {
  const bool rescale = correction[0] != 1 || correction[1] != 1 ||
                       state.rows.sum[0] + state.rows.sum[1] < 0;  // never
  const bool any = NamedAny(1 + Traits::kGroups + group, 128, rescale);
  WgmmaWait<0>();
  HoldRegisters(state.out);
  if (any) RescaleOut(state, correction);
}

template <class Traits>
__device__ inline void BeginTile(ConsumerState<Traits>& state, const ForwardParameters& p,
                                 int query, const int (&tokens)[2]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const bool exists = tokens[row] < p.queries;
    state.rows.lo[row] = exists ? p.lo[tokens[row]] : 0;
    state.rows.hi[row] = exists ? p.hi[tokens[row]] : 0;
    state.rows.max[row] = -INFINITY;
    state.rows.sum[row] = 0;
  }
  state.inside_lo = p.lo[min(query + 63, p.queries - 1)];
  state.inside_hi = p.hi[min(query, p.queries - 1)];
#pragma unroll
  for (int i = 0; i < Traits::kWidth / 2; ++i) state.out[i] = 0;
}

// The scores of the last key tile, which no product waits for.
template <class Traits>
__device__ inline void BeginKeys(ConsumerState<Traits>& state, Weights<Traits>& weights,
                                 typename Traits::Shared& shared, ForwardRing<Traits>& ring,
                                 const ForwardParameters& p, int key, const Turns<Traits>& turns) {
  float correction[2];
  shared.q_full.Wait(ring.q_parity);
  ring.q_parity ^= 1;
  shared.k_full[ring.k.stage].Wait(ring.k.parity);
  turns.Begin();
  IssueScores(state, shared, ring.k, turns.group);
  turns.End();
  WgmmaWait<0>();
  HoldRegisters(state.scores);
  ArriveOnceAWarp<Traits>(shared.k_empty[ring.k.stage]);
  ring.k.Next();
  WeighScores(state, p, key, correction);
  PackOperand<typename Traits::T>(weights, state.scores);
}

// Adds the key tile of `weights` to the output while it makes `next`, those of the tile at `key`.
// The two may be one, unless Overlap::kWeights.
template <class Traits>
__device__ inline void StepKeys(ConsumerState<Traits>& state, Weights<Traits>& weights,
                                Weights<Traits>& next, typename Traits::Shared& shared,
                                ForwardRing<Traits>& ring, const ForwardParameters& p, int key,
                                const Turns<Traits>& turns) {
  float correction[2];
  shared.k_full[ring.k.stage].Wait(ring.k.parity);
  turns.Begin();
  IssueScores(state, shared, ring.k, turns.group);
  shared.v_full[ring.v.stage].Wait(ring.v.parity);
  IssueOut(state, weights, shared, ring.v);
  turns.End();
  WgmmaWait<1>();
  HoldRegisters(state.scores);
  ArriveOnceAWarp<Traits>(shared.k_empty[ring.k.stage]);
  ring.k.Next();
  if constexpr (Traits::kOverlap == Overlap::kNone) {
    WgmmaWait<0>();
    HoldRegisters(state.out);
    HoldRegisters(weights);
    ArriveOnceAWarp<Traits>(shared.v_empty[ring.v.stage]);
    WeighScores(state, p, key, correction);
    RescaleOut(state, correction);
    PackOperand<typename Traits::T>(next, state.scores);
  } else {
    WeighScores(state, p, key, correction);
    if constexpr (Traits::kOverlap == Overlap::kWeights) {
      PackOperand<typename Traits::T>(next, state.scores);
    }
    FinishOut(state, correction, turns.group);
    HoldRegisters(weights);
    ArriveOnceAWarp<Traits>(shared.v_empty[ring.v.stage]);
    if constexpr (Traits::kOverlap == Overlap::kSoftmax) {
      PackOperand<typename Traits::T>(next, state.scores);
    }
  }
  ring.v.Next();
}

template <class Traits>
__device__ inline void EndKeys(ConsumerState<Traits>& state, Weights<Traits>& weights,
                               typename Traits::Shared& shared, ForwardRing<Traits>& ring) {
  ArriveOnceAWarp<Traits>(shared.q_empty);
  shared.v_full[ring.v.stage].Wait(ring.v.parity);
  IssueOut(state, weights, shared, ring.v);
  WgmmaWait<0>();
  HoldRegisters(state.out);
  HoldRegisters(weights);
  ArriveOnceAWarp<Traits>(shared.v_empty[ring.v.stage]);
  ring.v.Next();
}

// All key tiles of a query tile.
template <class Traits>
__device__ inline void ConsumeKeys(ConsumerState<Traits>& state, typename Traits::Shared& shared,
                                   ForwardRing<Traits>& ring, const ForwardParameters& p,
                                   const TileWork& work, const Turns<Traits>& turns) {
  Weights<Traits> weights;
  int tile = work.key_tiles - 1;
  auto key = [&] { return work.first_key + tile * Traits::kKeys; };
  BeginKeys(state, weights, shared, ring, p, key(), turns);
  if constexpr (Traits::kOverlap == Overlap::kWeights) {
    Weights<Traits> others;  // two tiles a round: each set keeps its registers
    while (tile >= 2) {
      --tile;
      StepKeys(state, weights, others, shared, ring, p, key(), turns);
      --tile;
      StepKeys(state, others, weights, shared, ring, p, key(), turns);
    }
    if (tile == 0) {
      EndKeys(state, weights, shared, ring);
    } else {
      tile = 0;
      StepKeys(state, weights, others, shared, ring, p, key(), turns);
      EndKeys(state, others, shared, ring);
    }
  } else {
    while (tile >= 1) {
      --tile;
      StepKeys(state, weights, weights, shared, ring, p, key(), turns);
    }
    EndKeys(state, weights, shared, ring);
  }
}

// A consumer warpgroup.
template <class Traits>
__device__ inline void ConsumeTiles(typename Traits::Shared& shared, const ForwardParameters& p,
                                    int group) {
  ForwardRing<Traits> ring;
  const Turns<Traits> turns{group};
  if (group == Traits::kGroups - 1) turns.End();  // group 0 is the first
  ConsumerState<Traits> state;
  const int lane = threadIdx.x % 32;
  const int row = 64 * group + threadIdx.x % 128 / 32 * 16 + lane / 4;
  for (int index = blockIdx.x; index < p.tiles; index += gridDim.x) {
    const TileWork work = WorkOfTile<Traits>(p, index);
    const int tokens[2] = {work.query + row, work.query + row + 8};
    BeginTile(state, p, work.query + 64 * group, tokens);
    if (work.key_tiles > 0) ConsumeKeys(state, shared, ring, p, work, turns);
    float factors[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float sum = QuadSum(state.rows.sum[i]);
      factors[i] = sum > 0 ? 1 / sum : 0;
      if (lane % 4 == 0 && tokens[i] < p.queries) {
        const float to_log2 = Traits::kSoftCap ? 1.f : p.scale.to_log2;
        p.lse[int64_t{tokens[i]} * p.heads + work.head] =
            sum > 0 ? kLn2 * (state.rows.max[i] * to_log2 + log2f(sum)) : -INFINITY;
      }
    }
    StoreRows<typename Traits::T>(p.out, state.out, tokens, p.queries, work.head, factors, p.width);
  }
}

}  // namespace osler::cuda::sm90
