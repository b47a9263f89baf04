// dK and dV of heads up to 256 wide: a tile of 64 keys; one multiplying warpgroup owns dV, the
// other dK, as an accumulator of 64 × 256 takes half a warpgroup's registers.
//
// The first computes P from S and hands it to the second through shared memory, each thread to the
// thread that holds the same elements. With kCluster = 2 the blocks of two neighbouring tiles walk
// together: each loads half of every tile of queries into both.
#pragma once

#include "kernels/cuda/sm90/backward_keys.cuh"

namespace osler::cuda::sm90 {

inline constexpr int kWideKeys = 64;
inline constexpr int kWideWidth = 256;
inline constexpr int kWideLoadingRegisters = 40;
inline constexpr int kWideMultiplyingRegisters = 232;
inline constexpr int kWeightsWritten = 1;  // named barriers of the two warpgroups
inline constexpr int kWeightsRead = 2;

template <int kQueries, int kStages>
struct alignas(1024) WideShared {
  char k[kWideKeys * kWideWidth * 2], v[kWideKeys * kWideWidth * 2];
  char q[kStages][kQueries * kWideWidth * 2];
  char grad_out[kStages][kQueries * kWideWidth * 2];
  uint4 weights[kQueries / 16][128];
  QueryValues<kQueries> values[kStages];  // full and empty with q
  Mbarrier k_full, v_full;
  Mbarrier q_full[kStages], q_empty[kStages];
  Mbarrier grad_out_full[kStages], grad_out_empty[kStages];
  QueryRange range;              // of the block's keys
  int32_t walk_begin, walk_end;  // of the cluster's keys
};

// A tile of queries, or this block's half of it to both blocks.
template <int kCluster, int kQueries>
__device__ inline void LoadWideTile(char* to, const CUtensorMap* map, Mbarrier* full, int token,
                                    int head, int rank) {
  full->ArriveExpecting(kQueries * kWideWidth * 2);
  if constexpr (kCluster == 1) {
    LoadTile<kWideWidth, kQueries>(to, map, full, token, head);
  } else {
#pragma unroll
    for (int i = 0; i < kWideWidth / kPanelWidth / 2; ++i) {
      const int panel = 2 * rank + i;
      LoadPanelMulticast(to + panel * kQueries * 128, map, full, panel * kPanelWidth, token, head,
                         3);
    }
  }
}

template <int kCluster, int kQueries, int kStages>
__device__ inline void LoadWideTiles(const BackwardCall& call, const QueryWalk<kQueries>& walk,
                                     WideShared<kQueries, kStages>& shared, int rank) {
  const int steps = walk.Steps();
  RingPosition<kStages> at;
  QueryStep<kQueries> step(walk);
  for (int n = 0; n < steps; ++n, at.Next(), step.Next(walk)) {
    const int stage = at.stage;
    shared.q_empty[stage].Wait(at.parity ^ 1);
    LoadWideTile<kCluster, kQueries>(shared.q[stage], &call.q, &shared.q_full[stage], step.query,
                                     step.head, rank);
    shared.grad_out_empty[stage].Wait(at.parity ^ 1);
    LoadWideTile<kCluster, kQueries>(shared.grad_out[stage], &call.grad_out,
                                     &shared.grad_out_full[stage], step.query, step.head, rank);
  }
}

// Counts this warp as done with what the barrier guards, in each block of the cluster.
template <int kCluster>
__device__ inline void ReleaseInCluster(Mbarrier* empty) {
  if constexpr (kCluster == 1) {
    Release(empty);
  } else {
    __syncwarp();
    if (threadIdx.x % 32 < kCluster) empty->ArriveAt(threadIdx.x % 32);
  }
}

// dV of the block's keys, and the weights for dS.
template <class T, bool kSoftCap, int kCluster, int kQueries, int kStages>
__device__ inline void MultiplyWideValues(const BackwardCall& call, const QueryWalk<kQueries>& walk,
                                          WideShared<kQueries, kStages>& shared, int first_key,
                                          float (&grad_v)[kWideWidth / 2]) {
  const QueryRange range = shared.range;
  const int thread = threadIdx.x % 128;
  const int key = first_key + thread / 32 * 16 + thread % 32 / 4;
  const int steps = walk.Steps();
  RingPosition<kStages> at;
  QueryStep<kQueries> step(walk);
  Mbarrier* unreleased = nullptr;
  shared.k_full.Wait(0);
  for (int n = 0; n < steps; ++n, at.Next(), step.Next(walk)) {
    const int stage = Uniform(at.stage);
    float s[kQueries / 2];
    uint32_t p[kQueries / 4];
    shared.q_full[stage].Wait(at.parity);
    WgmmaFence();
    MultiplyRows<kQueries, kWideWidth, T>(s, shared.k, kWideKeys, shared.q[stage], kQueries, false);
    WgmmaCommit();
    WgmmaWait<1>();  // the step before is done
    if (unreleased != nullptr) ReleaseInCluster<kCluster>(unreleased);
    WgmmaWait<0>();
    HoldRegisters(s);
    if (range.IsInside(step.query, kQueries)) {
      TransposedProbabilities<T, kSoftCap, false>(s, p, shared.values[stage], key, call);
    } else {
      TransposedProbabilities<T, kSoftCap, true>(s, p, shared.values[stage], key, call);
    }
    ReleaseInCluster<kCluster>(&shared.q_empty[stage]);
    if (n > 0) NamedSync(kWeightsRead, 256);
#pragma unroll
    for (int i = 0; i < kQueries / 16; ++i) {
      uint32_t weights[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int pair = 4 * i + j;
        weights[j] = kSoftCap ? PackPair(s[2 * pair], s[2 * pair + 1], T{}) : p[pair];
      }
      shared.weights[i][thread] = uint4{weights[0], weights[1], weights[2], weights[3]};
    }
    NamedArrive(kWeightsWritten, 256);
    shared.grad_out_full[stage].Wait(at.parity);
    WgmmaFence();
    MultiplyColumns<kWideWidth, kQueries, T>(grad_v, p, shared.grad_out[stage], kQueries, true);
    WgmmaCommit();
    unreleased = &shared.grad_out_empty[stage];
  }
  WgmmaWait<0>();
  HoldRegisters(grad_v);
}

// dSᵀ, rounded, of dPᵀ and the other warpgroup's weights.
template <class T, int kQueries>
__device__ inline void WeightedGradients(uint32_t (&grads)[kQueries / 4],
                                         const float (&grad_p)[kQueries / 2],
                                         const uint32_t (&weights)[kQueries / 4],
                                         const QueryValues<kQueries>& values) {
#pragma unroll
  for (int j = 0; j < kQueries / 8; ++j) {
    const int column = 8 * j + threadIdx.x % 4 * 2;
    const float2 delta = *reinterpret_cast<const float2*>(values.delta + column);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = 2 * j + half;
      const float2 weight = UnpackPair(weights[i], T{});
      grads[i] = PackPair(weight.x * (grad_p[2 * i] - delta.x),
                          weight.y * (grad_p[2 * i + 1] - delta.y), T{});
    }
  }
}

// dK of the block's keys, before the scale.
template <class T, int kCluster, int kQueries, int kStages>
__device__ inline void MultiplyWideKeys(const QueryWalk<kQueries>& walk,
                                        WideShared<kQueries, kStages>& shared,
                                        float (&grad_k)[kWideWidth / 2]) {
  const int thread = threadIdx.x % 128;
  const int steps = walk.Steps();
  RingPosition<kStages> at;
  Mbarrier* unreleased = nullptr;
  shared.v_full.Wait(0);
  for (int n = 0; n < steps; ++n, at.Next()) {
    const int stage = Uniform(at.stage);
    float grad_p[kQueries / 2];
    uint32_t weights[kQueries / 4];
    uint32_t grad_s[kQueries / 4];
    shared.grad_out_full[stage].Wait(at.parity);
    WgmmaFence();
    MultiplyRows<kQueries, kWideWidth, T>(grad_p, shared.v, kWideKeys, shared.grad_out[stage],
                                          kQueries, false);
    WgmmaCommit();
    WgmmaWait<1>();  // the step before is done
    if (unreleased != nullptr) ReleaseInCluster<kCluster>(unreleased);
    WgmmaWait<0>();
    HoldRegisters(grad_p);
    ReleaseInCluster<kCluster>(&shared.grad_out_empty[stage]);
    shared.q_full[stage].Wait(at.parity);
    NamedSync(kWeightsWritten, 256);
#pragma unroll
    for (int i = 0; i < kQueries / 16; ++i) {
      const uint4 four = shared.weights[i][thread];
      weights[4 * i] = four.x;
      weights[4 * i + 1] = four.y;
      weights[4 * i + 2] = four.z;
      weights[4 * i + 3] = four.w;
    }
    if (n + 1 < steps) NamedArrive(kWeightsRead, 256);
    WeightedGradients<T>(grad_s, grad_p, weights, shared.values[stage]);
    WgmmaFence();
    MultiplyColumns<kWideWidth, kQueries, T>(grad_k, grad_s, shared.q[stage], kQueries, true);
    WgmmaCommit();
    unreleased = &shared.q_empty[stage];
  }
  WgmmaWait<0>();
  HoldRegisters(grad_k);
}

template <int kQueries, int kStages>
__device__ inline void InitWideBarriers(WideShared<kQueries, kStages>& shared, int cluster) {
  shared.k_full.Init(1);
  shared.v_full.Init(1);
  for (int i = 0; i < kStages; ++i) {
    shared.q_full[i].Init(1 + kQueries);
    shared.grad_out_full[i].Init(1);
    shared.q_empty[i].Init(8 * cluster);
    shared.grad_out_empty[i].Init(8 * cluster);
  }
  FenceBarrierInit();
}

// Six warps find the block's and the cluster's ranges.
template <int kCluster, int kQueries, int kStages>
__device__ inline void FindWideRanges(const BackwardCall& call,
                                      WideShared<kQueries, kStages>& shared, int first_key,
                                      int rank) {
  const int which = threadIdx.x / 32;
  if (which >= 6) return;
  const int cluster_key = first_key - rank * kWideKeys;
  const int32_t found = which < 4
                            ? FindRangeEnd(call, first_key, kWideKeys, which)
                            : FindRangeEnd(call, cluster_key, kCluster * kWideKeys, which - 4);
  if (threadIdx.x % 32 == 0) {
    int32_t* to = which < 4 ? &shared.range.begin + which : &shared.walk_begin + (which - 4);
    *to = found;
  }
}

template <class T, bool kSoftCap, int kCluster, int kQueries, int kStages>
__global__ void __launch_bounds__(kBlockThreads, 1)
    WideKeysKernel(const __grid_constant__ BackwardCall call) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<WideShared<kQueries, kStages>*>(memory);
  const int rank = blockIdx.x % kCluster;
  const int key_head = blockIdx.x / kCluster % call.key_heads;
  const int first_key = (blockIdx.x / kCluster / call.key_heads * kCluster + rank) * kWideKeys;
  const int warp = Uniform(threadIdx.x / 32);
  if (threadIdx.x == 0) InitWideBarriers(shared, kCluster);
  FindWideRanges<kCluster>(call, shared, first_key, rank);
  if (kCluster == 1) {
    __syncthreads();
  } else {
    SyncCluster();
  }
  const int heads = call.heads / call.key_heads;
  const QueryWalk<kQueries> walk{shared.walk_begin, shared.walk_end, key_head * heads, heads};
  const bool empty = walk.Steps() == 0;
  if (warp < 4) {
    ShrinkRegisters<kWideLoadingRegisters>();
    if (threadIdx.x == 0 && !empty) {
      shared.k_full.ArriveExpecting(sizeof(shared.k));
      LoadTile<kWideWidth, kWideKeys>(shared.k, &call.k, &shared.k_full, first_key, key_head);
      shared.v_full.ArriveExpecting(sizeof(shared.v));
      LoadTile<kWideWidth, kWideKeys>(shared.v, &call.v, &shared.v_full, first_key, key_head);
      LoadWideTiles<kCluster>(call, walk, shared, rank);
    }
    const int row = static_cast<int>(threadIdx.x) - 32;
    if (row >= 0 && row < kQueries) {
      LoadQueryValues(call, walk, row, shared.values, shared.q_full, shared.q_empty);
    }
  } else {
    GrowRegisters<kWideMultiplyingRegisters>();
    float grads[kWideWidth / 2] = {};
    HoldRegisters(grads);
    if (warp < 8) {
      if (!empty) MultiplyWideValues<T, kSoftCap, kCluster>(call, walk, shared, first_key, grads);
    } else {
      if (!empty) MultiplyWideKeys<T, kCluster>(walk, shared, grads);
    }
    StoreRows<T, kWideWidth>(grads, warp < 8 ? 1.0f : call.scale,
                             warp < 8 ? call.grad_v : call.grad_k, call.wide_grads, key_head,
                             first_key, call.keys, call.width);
  }
  if (kCluster > 1) SyncCluster();  // the other block may still write here
}

template <class T, bool kSoftCap, int kCluster, int kQueries, int kStages>
int LaunchWideKeys(const AttentionBackward& arguments, cudaStream_t stream) {
  BackwardCall call = DescribeBackward(arguments);
  if (!MapTiles(&call, arguments, kQueries, kWideKeys)) return kUnsupported;
  constexpr int kKeys = kCluster * kWideKeys;
  const int64_t clusters = static_cast<int64_t>((call.keys + kKeys - 1) / kKeys) * call.key_heads;
  return LaunchBackward(WideKeysKernel<T, kSoftCap, kCluster, kQueries, kStages>,
                        clusters * kCluster, kCluster, sizeof(WideShared<kQueries, kStages>), call,
                        stream);
}

}  // namespace osler::cuda::sm90
