// dK and dV of heads up to 256 wide: a tile of 64 keys; one multiplying warpgroup owns dV, the
// other dK, as an accumulator of 64 × 256 takes half a warpgroup's registers.
//
// The first computes P from S and hands it to the second through shared memory, each thread to the
// thread that holds the same elements.
#pragma once

#include "kernels/cuda/sm90/backward_keys.cuh"

namespace osler::cuda::sm90 {

inline constexpr int kWideTile = 64;  // keys, and queries
inline constexpr int kWideWidth = 256;
inline constexpr int kWideStages = 2;
inline constexpr int kWideLoadingRegisters = 40;
inline constexpr int kWideMultiplyingRegisters = 232;
inline constexpr int kWeightsWritten = 3;  // named barriers, after those of Turns
inline constexpr int kWeightsRead = 4;

using WideWalk = QueryWalk<kWideTile>;
using WideStep = QueryStep<kWideTile>;
using WideRing = RingPosition<kWideStages>;
using WideValues = QueryValues<kWideTile>;
using WideScores = float[kWideTile / 2];
using WideOperand = uint32_t[kWideTile / 4];

struct alignas(1024) WideShared {
  char k[kWideTile * kWideWidth * 2], v[kWideTile * kWideWidth * 2];
  char q[kWideStages][kWideTile * kWideWidth * 2];
  char grad_out[kWideStages][kWideTile * kWideWidth * 2];
  uint4 weights[kWideTile / 16][128];
  WideValues values[kWideStages];  // full and empty with q
  Mbarrier k_full, v_full;
  Mbarrier q_full[kWideStages], q_empty[kWideStages];
  Mbarrier grad_out_full[kWideStages], grad_out_empty[kWideStages];
  int32_t range[4];
};

__device__ inline void LoadWideTiles(const BackwardCall& call, const WideWalk& walk,
                                     WideShared& shared) {
  const int steps = walk.Steps();
  WideRing at;
  WideStep step(walk);
#pragma unroll 1
  for (int n = 0; n < steps; ++n, at.Next(), step.Next(walk)) {
    const int stage = at.stage;
    shared.q_empty[stage].Wait(at.parity ^ 1);
    shared.q_full[stage].ArriveExpecting(sizeof(shared.q[0]));
    LoadTile<kWideWidth, kWideTile>(shared.q[stage], &call.q, &shared.q_full[stage], step.query,
                                    step.head);
    shared.grad_out_empty[stage].Wait(at.parity ^ 1);
    shared.grad_out_full[stage].ArriveExpecting(sizeof(shared.grad_out[0]));
    LoadTile<kWideWidth, kWideTile>(shared.grad_out[stage], &call.grad_out,
                                    &shared.grad_out_full[stage], step.query, step.head);
  }
}

// P', rounded, for the other warpgroup.
template <class T, bool kSoftCap>
__device__ inline void StoreWeights(WideShared& shared, const WideOperand& p,
                                    const WideScores& weights) {
#pragma unroll
  for (int i = 0; i < kWideTile / 16; ++i) {
    uint32_t pairs[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int pair = 4 * i + j;
      pairs[j] = kSoftCap ? PackPair(weights[2 * pair], weights[2 * pair + 1], T{}) : p[pair];
    }
    shared.weights[i][threadIdx.x % 128] = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
  }
}

// dSᵀ, rounded, of dPᵀ and the other warpgroup's weights.
template <class T>
__device__ inline void WeightedGradients(WideOperand& grad_s, const WideScores& grad_p,
                                         const WideValues& values, const WideShared& shared) {
#pragma unroll
  for (int i = 0; i < kWideTile / 16; ++i) {
    const uint4 four = shared.weights[i][threadIdx.x % 128];
    const uint32_t pairs[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = 16 * i + j / 2 * 8 + threadIdx.x % 4 * 2;
      const float2 delta = *reinterpret_cast<const float2*>(values.delta + column);
      const float2 weight = UnpackPair(pairs[j], T{});
      const int at = 4 * i + j;
      grad_s[at] = PackPair(weight.x * (grad_p[2 * at] - delta.x),
                            weight.y * (grad_p[2 * at + 1] - delta.y), T{});
    }
  }
}

// scores = keys · queriesᵀ. Then the turn passes, the step before is done and released, and these
// products are waited for.
template <class T>
__device__ inline void MultiplyWideScores(WideScores& scores, const char* keys, const char* queries,
                                          Turns& turns, Mbarrier* unreleased) {
  WgmmaFence();
  MultiplyRows<kWideTile, kWideWidth, T>(scores, keys, kWideTile, queries, kWideTile, false);
  WgmmaCommit();
  turns.Pass();
  WgmmaWait<1>();
  if (unreleased != nullptr) Release(unreleased);
  WgmmaWait<0>();
  HoldRegisters(scores);
}

// dV of the block's keys, and the weights for dS.
template <class T, bool kSoftCap>
__device__ inline void MultiplyWideValues(const BackwardCall& call, const WideWalk& walk,
                                          WideShared& shared, int first_key,
                                          float (&grad_v)[kWideWidth / 2]) {
  const QueryRange range(shared.range);
  const int key = first_key + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  const int steps = walk.Steps();
  WideRing at;
  WideStep step(walk);
  Turns turns(0);
  Mbarrier* unreleased = nullptr;
  shared.k_full.Wait(0);
  for (int n = 0; n < steps; ++n, at.Next(), step.Next(walk)) {
    const int stage = Uniform(at.stage);
    WideScores s;
    WideOperand p;
    shared.q_full[stage].Wait(at.parity);
    MultiplyWideScores<T>(s, shared.k, shared.q[stage], turns, unreleased);
    TransposedProbabilities<T, kSoftCap>(s, p, shared.values[stage], key,
                                         range.IsInside(step.query, kWideTile), call);
    if (n > 0) NamedSync(kWeightsRead, 256);
    StoreWeights<T, kSoftCap>(shared, p, s);
    NamedArrive(kWeightsWritten, 256);
    Release(&shared.q_empty[stage]);
    shared.grad_out_full[stage].Wait(at.parity);
    turns.Take();
    WgmmaFence();
    MultiplyColumns<kWideWidth, kWideTile, T>(grad_v, p, shared.grad_out[stage], kWideTile, true);
    WgmmaCommit();
    unreleased = &shared.grad_out_empty[stage];
  }
  turns.End();
  WgmmaWait<0>();
  HoldRegisters(grad_v);
}

// dK of the block's keys, before the scale.
template <class T>
__device__ inline void MultiplyWideKeys(const WideWalk& walk, WideShared& shared,
                                        float (&grad_k)[kWideWidth / 2]) {
  const int steps = walk.Steps();
  WideRing at;
  Turns turns(1);
  Mbarrier* unreleased = nullptr;
  shared.v_full.Wait(0);
  for (int n = 0; n < steps; ++n, at.Next()) {
    const int stage = Uniform(at.stage);
    WideScores grad_p;
    WideOperand grad_s;
    shared.grad_out_full[stage].Wait(at.parity);
    MultiplyWideScores<T>(grad_p, shared.v, shared.grad_out[stage], turns, unreleased);
    Release(&shared.grad_out_empty[stage]);
    shared.q_full[stage].Wait(at.parity);
    NamedSync(kWeightsWritten, 256);
    WeightedGradients<T>(grad_s, grad_p, shared.values[stage], shared);
    if (n + 1 < steps) NamedArrive(kWeightsRead, 256);
    turns.Take();
    WgmmaFence();
    MultiplyColumns<kWideWidth, kWideTile, T>(grad_k, grad_s, shared.q[stage], kWideTile, true);
    WgmmaCommit();
    unreleased = &shared.q_empty[stage];
  }
  WgmmaWait<0>();
  HoldRegisters(grad_k);
}

// By one thread; the keys and values are on their way when it returns.
__device__ inline void StartWideKeys(const BackwardCall& call, int first_key, int key_head,
                                     WideShared& shared) {
  shared.k_full.Init(1);
  shared.v_full.Init(1);
  for (int i = 0; i < kWideStages; ++i) {
    shared.q_full[i].Init(1 + kWideTile);
    shared.grad_out_full[i].Init(1);
    shared.q_empty[i].Init(8);
    shared.grad_out_empty[i].Init(8);
  }
  FenceBarrierInit();
  shared.k_full.ArriveExpecting(sizeof(shared.k));
  LoadTile<kWideWidth, kWideTile>(shared.k, &call.k, &shared.k_full, first_key, key_head);
  shared.v_full.ArriveExpecting(sizeof(shared.v));
  LoadTile<kWideWidth, kWideTile>(shared.v, &call.v, &shared.v_full, first_key, key_head);
}

template <class T, bool kSoftCap>
__global__ void __launch_bounds__(kBlockThreads, 1)
    WideKeysKernel(const __grid_constant__ BackwardCall call) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<WideShared*>(memory);
  const int key_head = blockIdx.x % call.key_heads;
  const int first_key = blockIdx.x / call.key_heads * kWideTile;
  const int warp = Uniform(threadIdx.x / 32);
  if (threadIdx.x == 0) StartWideKeys(call, first_key, key_head, shared);
  if (warp >= 4 && warp < 8) {
    const int32_t found = FindRangeEnd(call, first_key, kWideTile, warp - 4);
    if (threadIdx.x % 32 == 0) shared.range[warp - 4] = found;
  }
  __syncthreads();
  const int heads = call.heads / call.key_heads;
  const QueryRange range(shared.range);
  const WideWalk walk{range.begin, range.end, key_head * heads, heads};
  if (warp < 4) {
    ShrinkRegisters<kWideLoadingRegisters>();
    if (threadIdx.x == 0) LoadWideTiles(call, walk, shared);
    const int row = static_cast<int>(threadIdx.x) - 32;
    if (row >= 0 && row < kWideTile) {
      LoadQueryValues(call, walk, row, shared.values, shared.q_full, shared.q_empty);
    }
  } else {
    GrowRegisters<kWideMultiplyingRegisters>();
    float grads[kWideWidth / 2] = {};
    HoldRegisters(grads);
    if (warp < 8) {
      MultiplyWideValues<T, kSoftCap>(call, walk, shared, first_key, grads);
    } else {
      MultiplyWideKeys<T>(walk, shared, grads);
    }
    StoreGradients<T>(grads, warp < 8 ? 1.0f : call.scale, warp < 8 ? call.grad_v : call.grad_k,
                      key_head, first_key, call.keys, call.width);
  }
}

template <class T, bool kSoftCap>
int LaunchWideKeys(const AttentionBackward& arguments, cudaStream_t stream) {
  BackwardCall call = DescribeBackward(arguments);
  if (!MapTiles(&call, arguments, kWideTile, kWideTile)) return kUnsupported;
  const int64_t tiles = (call.keys + kWideTile - 1) / kWideTile;
  return LaunchBackward(WideKeysKernel<T, kSoftCap>, tiles * call.key_heads, sizeof(WideShared),
                        call, stream);
}

}  // namespace osler::cuda::sm90
