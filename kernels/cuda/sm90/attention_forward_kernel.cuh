// Attention's forward pass on Hopper: one producer warpgroup fills rings of key and value tiles by
// TMA, kGroups consumer warpgroups own 64 queries each. A consumer issues the next tile's scores
// before the softmax of this one, and the groups take turns at the tensor cores, so that one
// group's exponentials run under another's products (Shah et al., "FlashAttention-3", arXiv
// 2407.08608).
//
// Persistent: a block walks the query tiles blockIdx.x, + gridDim.x, … of an order with the longest
// first. What a query computes depends on its tile's keys alone, in a fixed order: deterministic.
#pragma once

#include "kernels/cuda/sm90/attention_forward_consumer.cuh"
#include "kernels/cuda/sm90/attention_forward_work.cuh"
#include "kernels/cuda/sm90/barrier.cuh"
#include "kernels/cuda/sm90/tma.cuh"

namespace osler::cuda::sm90 {

template <class Traits>
struct ForwardMaps {
  const CUtensorMap *q, *k, *v;
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
