// dK and dV of heads up to 256 wide: a tile of 64 keys; one multiplying warpgroup owns dV, the
// other dK, as an accumulator of 64 × 256 takes half a warpgroup's registers.
//
// The first computes P from S and hands it to the second through shared memory, each thread to the
// thread that holds the same elements.
#pragma once

#include "kernels/cuda/sm90/backward_keys.cuh"

namespace osler::cuda::sm90 {

inline constexpr int kWideKeys = 64;
inline constexpr int kWideWidth = 256;
inline constexpr int kWideLoadingRegisters = 40;
inline constexpr int kWideMultiplyingRegisters = 232;
inline constexpr int kWeightsWritten = 3;  // named barriers, after those of Turns
inline constexpr int kWeightsRead = 4;

template <int kQueries, int kStages, int kGradStages>
struct alignas(1024) WideShared {
  char k[kWideKeys * kWideWidth * 2], v[kWideKeys * kWideWidth * 2];
  char q[kStages][kQueries * kWideWidth * 2];
  char grad_out[kGradStages][kQueries * kWideWidth * 2];
  uint4 weights[kQueries / 16][128];
  QueryValues<kQueries> values[kStages];  // full and empty with q
  Mbarrier k_full, v_full;
  Mbarrier q_full[kStages], q_empty[kStages];
  Mbarrier grad_out_full[kGradStages], grad_out_empty[kGradStages];
  QueryRange range;
};

template <int kQueries, int kStages, int kGradStages>
__device__ inline void LoadWideTiles(const BackwardCall& call, const QueryWalk<kQueries>& walk,
                                     WideShared<kQueries, kStages, kGradStages>& shared) {
  const int steps = walk.Steps();
  RingPosition<kStages> q_at;
  RingPosition<kGradStages> grad_at;
  QueryStep<kQueries> step(walk);
#pragma unroll 1
  for (int n = 0; n < steps; ++n, q_at.Next(), grad_at.Next(), step.Next(walk)) {
    Mbarrier* full = &shared.q_full[q_at.stage];
    shared.q_empty[q_at.stage].Wait(q_at.parity ^ 1);
    full->ArriveExpecting(sizeof(shared.q[0]));
    LoadTile<kWideWidth, kQueries>(shared.q[q_at.stage], &call.q, full, step.query, step.head);
    full = &shared.grad_out_full[grad_at.stage];
    shared.grad_out_empty[grad_at.stage].Wait(grad_at.parity ^ 1);
    full->ArriveExpecting(sizeof(shared.grad_out[0]));
    LoadTile<kWideWidth, kQueries>(shared.grad_out[grad_at.stage], &call.grad_out, full, step.query,
                                   step.head);
  }
}

// P', rounded, for the other warpgroup.
template <class T, bool kSoftCap, int kQueries, int kStages, int kGradStages>
__device__ inline void StoreWeights(WideShared<kQueries, kStages, kGradStages>& shared,
                                    const uint32_t (&p)[kQueries / 4],
                                    const float (&weights)[kQueries / 2]) {
#pragma unroll
  for (int i = 0; i < kQueries / 16; ++i) {
    uint32_t pairs[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int pair = 4 * i + j;
      pairs[j] = kSoftCap ? PackPair(weights[2 * pair], weights[2 * pair + 1], T{}) : p[pair];
    }
    shared.weights[i][threadIdx.x % 128] = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
  }
}

// dV of the block's keys, and the weights for dS.
template <class T, bool kSoftCap, int kQueries, int kStages, int kGradStages>
__device__ inline void MultiplyWideValues(const BackwardCall& call, const QueryWalk<kQueries>& walk,
                                          WideShared<kQueries, kStages, kGradStages>& shared,
                                          int first_key, float (&grad_v)[kWideWidth / 2]) {
  const QueryRange range = shared.range;
  const int key = first_key + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  const int steps = walk.Steps();
  RingPosition<kStages> q_at;
  RingPosition<kGradStages> grad_at;
  QueryStep<kQueries> step(walk);
  Turns turns(0);
  Mbarrier* unreleased = nullptr;
  shared.k_full.Wait(0);
  for (int n = 0; n < steps; ++n, q_at.Next(), grad_at.Next(), step.Next(walk)) {
    const int q_stage = Uniform(q_at.stage);
    const int grad_stage = Uniform(grad_at.stage);
    float s[kQueries / 2];
    uint32_t p[kQueries / 4];
    shared.q_full[q_stage].Wait(q_at.parity);
    WgmmaFence();
    MultiplyRows<kQueries, kWideWidth, T>(s, shared.k, kWideKeys, shared.q[q_stage], kQueries,
                                          false);
    WgmmaCommit();
    turns.Pass();
    WgmmaWait<1>();  // the step before is done
    if (unreleased != nullptr) Release(unreleased);
    WgmmaWait<0>();
    HoldRegisters(s);
    TransposedProbabilities<T, kSoftCap>(s, p, shared.values[q_stage], key,
                                         range.IsInside(step.query, kQueries), call);
    if (n > 0) NamedSync(kWeightsRead, 256);
    StoreWeights<T, kSoftCap>(shared, p, s);
    NamedArrive(kWeightsWritten, 256);
    Release(&shared.q_empty[q_stage]);
    shared.grad_out_full[grad_stage].Wait(grad_at.parity);
    turns.Take();
    WgmmaFence();
    MultiplyColumns<kWideWidth, kQueries, T>(grad_v, p, shared.grad_out[grad_stage], kQueries,
                                             true);
    WgmmaCommit();
    unreleased = &shared.grad_out_empty[grad_stage];
  }
  turns.End();
  WgmmaWait<0>();
  HoldRegisters(grad_v);
}

// dSᵀ, rounded, of dPᵀ and the other warpgroup's weights.
template <class T, int kQueries, int kStages, int kGradStages>
__device__ inline void WeightedGradients(uint32_t (&grad_s)[kQueries / 4],
                                         const float (&grad_p)[kQueries / 2],
                                         const QueryValues<kQueries>& values,
                                         const WideShared<kQueries, kStages, kGradStages>& shared) {
#pragma unroll
  for (int i = 0; i < kQueries / 16; ++i) {
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

// dK of the block's keys, before the scale.
template <class T, int kQueries, int kStages, int kGradStages>
__device__ inline void MultiplyWideKeys(const QueryWalk<kQueries>& walk,
                                        WideShared<kQueries, kStages, kGradStages>& shared,
                                        float (&grad_k)[kWideWidth / 2]) {
  const int steps = walk.Steps();
  RingPosition<kStages> q_at;
  RingPosition<kGradStages> grad_at;
  Turns turns(1);
  Mbarrier* unreleased = nullptr;
  shared.v_full.Wait(0);
  for (int n = 0; n < steps; ++n, q_at.Next(), grad_at.Next()) {
    const int q_stage = Uniform(q_at.stage);
    const int grad_stage = Uniform(grad_at.stage);
    float grad_p[kQueries / 2];
    uint32_t grad_s[kQueries / 4];
    shared.grad_out_full[grad_stage].Wait(grad_at.parity);
    WgmmaFence();
    MultiplyRows<kQueries, kWideWidth, T>(grad_p, shared.v, kWideKeys, shared.grad_out[grad_stage],
                                          kQueries, false);
    WgmmaCommit();
    turns.Pass();
    WgmmaWait<1>();  // the step before is done
    if (unreleased != nullptr) Release(unreleased);
    WgmmaWait<0>();
    HoldRegisters(grad_p);
    Release(&shared.grad_out_empty[grad_stage]);
    shared.q_full[q_stage].Wait(q_at.parity);
    NamedSync(kWeightsWritten, 256);
    WeightedGradients<T>(grad_s, grad_p, shared.values[q_stage], shared);
    if (n + 1 < steps) NamedArrive(kWeightsRead, 256);
    turns.TakeAfter(grad_s);
    WgmmaFence();
    MultiplyColumns<kWideWidth, kQueries, T>(grad_k, grad_s, shared.q[q_stage], kQueries, true);
    WgmmaCommit();
    unreleased = &shared.q_empty[q_stage];
  }
  WgmmaWait<0>();
  HoldRegisters(grad_k);
}

// By one thread; the keys and values are on their way when it returns.
template <int kQueries, int kStages, int kGradStages>
__device__ inline void StartWideKeys(const BackwardCall& call, int first_key, int key_head,
                                     WideShared<kQueries, kStages, kGradStages>& shared) {
  shared.k_full.Init(1);
  shared.v_full.Init(1);
  for (int i = 0; i < kStages; ++i) {
    shared.q_full[i].Init(1 + kQueries);
    shared.q_empty[i].Init(8);
  }
  for (int i = 0; i < kGradStages; ++i) {
    shared.grad_out_full[i].Init(1);
    shared.grad_out_empty[i].Init(8);
  }
  FenceBarrierInit();
  shared.k_full.ArriveExpecting(sizeof(shared.k));
  LoadTile<kWideWidth, kWideKeys>(shared.k, &call.k, &shared.k_full, first_key, key_head);
  shared.v_full.ArriveExpecting(sizeof(shared.v));
  LoadTile<kWideWidth, kWideKeys>(shared.v, &call.v, &shared.v_full, first_key, key_head);
}

template <class T, bool kSoftCap, int kQueries, int kStages, int kGradStages>
__global__ void __launch_bounds__(kBlockThreads, 1)
    WideKeysKernel(const __grid_constant__ BackwardCall call) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<WideShared<kQueries, kStages, kGradStages>*>(memory);
  const int key_head = blockIdx.x % call.key_heads;
  const int first_key = blockIdx.x / call.key_heads * kWideKeys;
  const int warp = Uniform(threadIdx.x / 32);
  if (threadIdx.x == 0) StartWideKeys(call, first_key, key_head, shared);
  if (warp >= 4 && warp < 8) {
    const int32_t found = FindRangeEnd(call, first_key, kWideKeys, warp - 4);
    if (threadIdx.x % 32 == 0) (&shared.range.begin)[warp - 4] = found;
  }
  __syncthreads();
  const int heads = call.heads / call.key_heads;
  const QueryWalk<kQueries> walk{shared.range.begin, shared.range.end, key_head * heads, heads};
  if (warp < 4) {
    ShrinkRegisters<kWideLoadingRegisters>();
    if (threadIdx.x == 0) LoadWideTiles(call, walk, shared);
    const int row = static_cast<int>(threadIdx.x) - 32;
    if (row >= 0 && row < kQueries) {
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

template <class T, bool kSoftCap, int kQueries, int kStages, int kGradStages>
int LaunchWideKeys(const AttentionBackward& arguments, cudaStream_t stream) {
  BackwardCall call = DescribeBackward(arguments);
  if (!MapTiles(&call, arguments, kQueries, kWideKeys)) return kUnsupported;
  const int64_t tiles = (call.keys + kWideKeys - 1) / kWideKeys;
  return LaunchBackward(WideKeysKernel<T, kSoftCap, kQueries, kStages, kGradStages>,
                        tiles * call.key_heads, sizeof(WideShared<kQueries, kStages, kGradStages>),
                        call, stream);
}

}  // namespace osler::cuda::sm90
