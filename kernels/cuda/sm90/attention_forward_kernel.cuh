// Attention's forward pass on Hopper: one producer warpgroup fills rings of key and value tiles by
// TMA, kGroups consumer warpgroups own 64 queries each. A consumer issues the next tile's scores
// before the softmax of this one, and the groups take turns at the tensor cores, so that one
// group's exponentials run under another's products (Shah et al., "FlashAttention-3", arXiv
// 2407.08608).
//
// Persistent: a block walks the query tiles blockIdx.x, + gridDim.x, … of an order with the longest
// first. What a query computes depends on its tile's keys alone, in a fixed order: deterministic.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/sm90/attention_forward_softmax.cuh"
#include "kernels/cuda/sm90/attention_output.cuh"
#include "kernels/cuda/sm90/barrier.cuh"
#include "kernels/cuda/sm90/tma.cuh"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace osler::cuda::sm90 {

// What a warpgroup does while its own product with the values runs: nothing, the next softmax, or
// its rounding to operands too, which takes a second set of registers. Narrow heads have more
// softmax than product to hide it under: there the compiler's own order is the faster one.
enum class Overlap { kNone, kSoftmax, kWeights };

template <int kWidth_, int kKeys_, int kGroups_, int kStages_, Overlap kOverlap_, class T_,
          bool kSoftCap_>
struct ForwardTraits {
  using T = T_;
  static constexpr int kWidth = kWidth_;    // of a head, padded
  static constexpr int kKeys = kKeys_;      // of a key tile
  static constexpr int kGroups = kGroups_;  // consumer warpgroups
  static constexpr int kStages = kStages_;
  static constexpr Overlap kOverlap = kOverlap_;
  static constexpr bool kSoftCap = kSoftCap_;
  static constexpr int kQueries = 64 * kGroups;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kTileBytes = kKeys * kWidth * 2;
  static constexpr int kProducerRegisters = kGroups == 2 ? 24 : 32;
  static constexpr int kConsumerRegisters = kGroups == 2 ? 240 : 160;

  struct Shared {
    alignas(1024) char q[kQueries * kWidth * 2];
    alignas(1024) char k[kStages][kTileBytes];
    alignas(1024) char v[kStages][kTileBytes];
    Mbarrier q_full, q_empty;
    Mbarrier k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
  };
};

struct ForwardParameters {
  const int32_t* lo;
  const int32_t* hi;
  OutputRows out;
  float* lse;
  ScoreScale scale;
  int queries, heads, group, width;  // group: query heads a key head
  int tiles;                         // of queries, in all heads
};

// A query tile's place, and the key tiles that it walks from the last to the first.
struct TileWork {
  int query, head, first_key, key_tiles;
};
template <class Traits>
__device__ inline TileWork WorkOfTile(const ForwardParameters& p, int index) {
  TileWork work;
  const int from_last = index / p.heads;
  work.head = index - from_last * p.heads;
  work.query = (p.tiles / p.heads - 1 - from_last) * Traits::kQueries;
  work.first_key = p.lo[work.query];
  const int end = p.hi[min(work.query + Traits::kQueries, p.queries) - 1];
  work.key_tiles = max(0, (end - work.first_key + Traits::kKeys - 1) / Traits::kKeys);
  return work;
}

template <class Traits>
struct ForwardMaps {
  const CUtensorMap *q, *k, *v;
};

template <class Traits>
struct ForwardRing {
  RingPosition<Traits::kStages> k, v;
  uint32_t q_parity = 0;
};

// Waits for a free buffer of a ring and fills it.
template <class Traits>
__device__ inline void FillStage(char (&buffers)[Traits::kStages][Traits::kTileBytes],
                                 Mbarrier* full, Mbarrier* empty, RingPosition<Traits::kStages>& at,
                                 const CUtensorMap* map, int key, int head) {
  empty[at.stage].Wait(at.parity ^ 1);
  full[at.stage].ArriveExpecting(Traits::kTileBytes);
  LoadTile<Traits::kWidth, Traits::kKeys>(buffers[at.stage], map, &full[at.stage], key, head);
  at.Next();
}

// The producer's one thread.
template <class Traits>
__device__ inline void ProduceTiles(typename Traits::Shared& shared, const ForwardParameters& p,
                                    const ForwardMaps<Traits>& maps) {
  ForwardRing<Traits> ring;
  for (int index = blockIdx.x; index < p.tiles; index += gridDim.x) {
    const TileWork work = WorkOfTile<Traits>(p, index);
    const int key_head = work.head / p.group;
    auto key = [&](int tile) { return work.first_key + tile * Traits::kKeys; };
    auto fill_k = [&](int tile) {
      FillStage<Traits>(shared.k, shared.k_full, shared.k_empty, ring.k, maps.k, key(tile),
                        key_head);
    };
    auto fill_v = [&](int tile) {
      FillStage<Traits>(shared.v, shared.v_full, shared.v_empty, ring.v, maps.v, key(tile),
                        key_head);
    };
    if (work.key_tiles == 0) continue;
    shared.q_empty.Wait(ring.q_parity ^ 1);
    shared.q_full.ArriveExpecting(sizeof(shared.q));
    LoadTile<Traits::kWidth, Traits::kQueries>(shared.q, maps.q, &shared.q_full, work.query,
                                               work.head);
    ring.q_parity ^= 1;
    fill_k(work.key_tiles - 1);
    for (int tile = work.key_tiles - 2; tile >= 0; --tile) {
      fill_k(tile);
      fill_v(tile + 1);
    }
    fill_v(0);
  }
}

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

template <class Traits>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    ForwardKernel(const __grid_constant__ CUtensorMap q_map,
                  const __grid_constant__ CUtensorMap k_map,
                  const __grid_constant__ CUtensorMap v_map, const ForwardParameters p) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<typename Traits::Shared*>(memory);
  if (threadIdx.x == 0) {
    constexpr int kWarps = 4 * Traits::kGroups;
    shared.q_full.Init(1);
    shared.q_empty.Init(kWarps);
    for (int stage = 0; stage < Traits::kStages; ++stage) {
      shared.k_full[stage].Init(1);
      shared.v_full[stage].Init(1);
      shared.k_empty[stage].Init(kWarps);
      shared.v_empty[stage].Init(kWarps);
    }
    FenceBarrierInit();
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    ShrinkRegisters<Traits::kProducerRegisters>();
    if (threadIdx.x == 0) {
      ProduceTiles<Traits>(shared, p, ForwardMaps<Traits>{&q_map, &k_map, &v_map});
    }
  } else {
    GrowRegisters<Traits::kConsumerRegisters>();
    ConsumeTiles<Traits>(shared, p, warpgroup - 1);
  }
}

}  // namespace osler::cuda::sm90
