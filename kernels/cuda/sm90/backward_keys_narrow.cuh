// dK and dV of heads up to 128 wide: a tile of 128 keys, each multiplying warpgroup owns 64 of them
// and their dK and dV.
#pragma once

#include "kernels/cuda/sm90/backward_keys.cuh"

namespace osler::cuda::sm90 {

inline constexpr int kNarrowKeys = 128;
// The loading warps need more than the least when the others can spare it.
template <int kWidth>
inline constexpr int kNarrowLoadingRegisters = kWidth > 64 ? kLoadingRegisters : 40;
template <int kWidth>
inline constexpr int kNarrowMultiplyingRegisters = kWidth > 64 ? kMultiplyingRegisters : 232;

template <int kWidth, int kQueries, int kStages>
struct alignas(1024) NarrowShared {
  struct Tile {
    char q[kQueries * kWidth * 2], grad_out[kQueries * kWidth * 2];
  };
  char k[kNarrowKeys * kWidth * 2], v[kNarrowKeys * kWidth * 2];
  Tile tiles[kStages];
  QueryValues<kQueries> values[kStages];
  Mbarrier keys_full, full[kStages], empty[kStages];
  int32_t ranges[2][4];  // of the warpgroups' keys
};

template <int kWidth, int kQueries, int kStages>
__device__ inline void LoadNarrowTiles(const BackwardCall& call, const QueryWalk<kQueries>& walk,
                                       NarrowShared<kWidth, kQueries, kStages>& shared) {
  const int steps = walk.Steps();
  RingPosition<kStages> at;
  QueryStep<kQueries> step(walk);
#pragma unroll 1
  for (int n = 0; n < steps; ++n, at.Next(), step.Next(walk)) {
    auto& tile = shared.tiles[at.stage];
    Mbarrier* full = &shared.full[at.stage];
    shared.empty[at.stage].Wait(at.parity ^ 1);
    full->ArriveExpecting(sizeof(tile));
    LoadTile<kWidth, kQueries>(tile.q, &call.q, full, step.query, step.head);
    LoadTile<kWidth, kQueries>(tile.grad_out, &call.grad_out, full, step.query, step.head);
  }
}

// dSᵀ = P'ᵀ (dPᵀ − delta), rounded.
template <class T, int kQueries>
__device__ inline void TransposedGradients(uint32_t (&grad_s)[kQueries / 4],
                                           const float (&p)[kQueries / 2],
                                           const float (&grad_p)[kQueries / 2],
                                           const QueryValues<kQueries>& values) {
#pragma unroll
  for (int j = 0; j < kQueries / 8; ++j) {
    const int column = 8 * j + threadIdx.x % 4 * 2;
    const float2 delta = *reinterpret_cast<const float2*>(values.delta + column);
#pragma unroll
    for (int i = 4 * j; i < 4 * j + 4; i += 2) {
      grad_s[i / 2] =
          PackPair(p[i] * (grad_p[i] - delta.x), p[i + 1] * (grad_p[i + 1] - delta.y), T{});
    }
  }
}

// A multiplying warpgroup at its steps.
template <class T, bool kSoftCap, int kWidth, int kQueries, int kStages>
class NarrowGroup {
 public:
  using Shared = NarrowShared<kWidth, kQueries, kStages>;
  using Gradients = float[kWidth / 2];

  // `group` is 0 or 1.
  __device__ NarrowGroup(const BackwardCall& call, Shared& shared, int first_key, int group)
      : call_(call),
        shared_(shared),
        range_(shared.ranges[group]),
        rows_(group * 64 * 128),
        key_(first_key + group * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4),
        turns_(group) {}

  __device__ bool Skips(int query) const { return range_.Skips(query, kQueries); }
  __device__ void Skip(int stage) {
    WgmmaWait<0>();
    ReleaseStep();
    Release(&shared_.empty[stage]);
    turns_.Skip();
  }

  __device__ void Step(int stage, int query, Gradients& grad_k, Gradients& grad_v) {
    float s[kQueries / 2];
    float grad_p[kQueries / 2];
    uint32_t p[kQueries / 4];
    uint32_t grad_s[kQueries / 4];
    const auto& tile = shared_.tiles[stage];
    const QueryValues<kQueries>& values = shared_.values[stage];
    WgmmaFence();
    MultiplyRows<kQueries, kWidth, T>(s, shared_.k + rows_, kNarrowKeys, tile.q, kQueries, false);
    WgmmaCommit();
    WgmmaWait<1>();  // the step before is done; else its registers would be missing
    ReleaseStep();
    WgmmaFence();
    MultiplyRows<kQueries, kWidth, T>(grad_p, shared_.v + rows_, kNarrowKeys, tile.grad_out,
                                      kQueries, false);
    WgmmaCommit();
    turns_.Pass();
    WgmmaWait<1>();
    HoldRegisters(s);
    TransposedProbabilities<T, kSoftCap>(s, p, values, key_, range_.IsInside(query, kQueries),
                                         call_);
    WgmmaWait<0>();
    HoldRegisters(grad_p);
    TransposedGradients<T>(grad_s, s, grad_p, values);
    turns_.Take();
    WgmmaFence();
    MultiplyColumns<kWidth, kQueries, T>(grad_v, p, tile.grad_out, kQueries, true);
    WgmmaCommit();
    MultiplyColumns<kWidth, kQueries, T>(grad_k, grad_s, tile.q, kQueries, true);
    WgmmaCommit();
    unreleased_ = &shared_.empty[stage];
  }

  __device__ void End(Gradients& grad_k, Gradients& grad_v) {
    turns_.End();
    WgmmaWait<0>();
    HoldRegisters(grad_k);
    HoldRegisters(grad_v);
  }

 private:
  __device__ void ReleaseStep() {
    if (unreleased_ != nullptr) Release(unreleased_);
    unreleased_ = nullptr;
  }

  const BackwardCall& call_;
  Shared& shared_;
  const QueryRange range_;
  const int rows_;  // to the group's keys within a panel
  const int key_;   // of this thread's first row
  Turns turns_;
  Mbarrier* unreleased_ = nullptr;  // of a step that may not be done
};

template <class T, bool kSoftCap, int kWidth, int kQueries, int kStages>
__device__ inline void MultiplyNarrow(const BackwardCall& call, const QueryWalk<kQueries>& walk,
                                      NarrowShared<kWidth, kQueries, kStages>& shared, int group,
                                      int first_key, float (&grad_k)[kWidth / 2],
                                      float (&grad_v)[kWidth / 2]) {
  NarrowGroup<T, kSoftCap, kWidth, kQueries, kStages> multiplying(call, shared, first_key, group);
  const int steps = walk.Steps();
  RingPosition<kStages> at;
  QueryStep<kQueries> step(walk);
  for (int n = 0; n < steps; ++n, at.Next(), step.Next(walk)) {
    const int stage = Uniform(at.stage);
    shared.full[stage].Wait(at.parity);
    if (multiplying.Skips(step.query)) {
      multiplying.Skip(stage);
    } else {
      multiplying.Step(stage, step.query, grad_k, grad_v);
    }
  }
  multiplying.End(grad_k, grad_v);
}

template <class T, bool kSoftCap, int kWidth, int kQueries, int kStages>
__global__ void __launch_bounds__(kBlockThreads, 1)
    NarrowKeysKernel(const __grid_constant__ BackwardCall call) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<NarrowShared<kWidth, kQueries, kStages>*>(memory);
  const int key_head = blockIdx.x % call.key_heads;
  const int first_key = blockIdx.x / call.key_heads * kNarrowKeys;
  const int warp = Uniform(threadIdx.x / 32);
  if (threadIdx.x == 0) {
    shared.keys_full.Init(1);
    for (int i = 0; i < kStages; ++i) {
      shared.full[i].Init(1 + kQueries);
      shared.empty[i].Init(8);
    }
    FenceBarrierInit();
    shared.keys_full.ArriveExpecting(sizeof(shared.k) + sizeof(shared.v));
    LoadTile<kWidth, kNarrowKeys>(shared.k, &call.k, &shared.keys_full, first_key, key_head);
    LoadTile<kWidth, kNarrowKeys>(shared.v, &call.v, &shared.keys_full, first_key, key_head);
  }
  if (warp >= 4) {
    const int group = warp / 4 - 1;
    const int32_t found = FindRangeEnd(call, first_key + group * 64, 64, warp % 4);
    if (threadIdx.x % 32 == 0) shared.ranges[group][warp % 4] = found;
  }
  __syncthreads();
  const int heads = call.heads / call.key_heads;
  const QueryRange first_range(shared.ranges[0]);
  const QueryWalk<kQueries> walk{first_range.begin,
                                 max(first_range.end, QueryRange(shared.ranges[1]).end),
                                 key_head * heads, heads};
  if (warp < 4) {
    ShrinkRegisters<kNarrowLoadingRegisters<kWidth>>();
    if (threadIdx.x == 0) LoadNarrowTiles(call, walk, shared);
    const int row = static_cast<int>(threadIdx.x) - 32;
    if (row >= 0 && row < kQueries) {
      LoadQueryValues(call, walk, row, shared.values, shared.full, shared.empty);
    }
  } else {
    GrowRegisters<kNarrowMultiplyingRegisters<kWidth>>();
    const int group = warp / 4 - 1;
    float grad_k[kWidth / 2] = {};
    float grad_v[kWidth / 2] = {};
    HoldRegisters(grad_k);
    HoldRegisters(grad_v);
    shared.keys_full.Wait(0);
    MultiplyNarrow<T, kSoftCap>(call, walk, shared, group, first_key, grad_k, grad_v);
    const int first = first_key + group * 64;
    StoreGradients<T>(grad_v, 1.0f, call.grad_v, key_head, first, call.keys, call.width);
    StoreGradients<T>(grad_k, call.scale, call.grad_k, key_head, first, call.keys, call.width);
  }
}

template <class T, bool kSoftCap, int kWidth, int kQueries, int kStages>
int LaunchNarrowKeys(const AttentionBackward& arguments, cudaStream_t stream) {
  BackwardCall call = DescribeBackward(arguments);
  if (!MapTiles(&call, arguments, kQueries, kNarrowKeys)) return kUnsupported;
  const int64_t tiles = (call.keys + kNarrowKeys - 1) / kNarrowKeys;
  return LaunchBackward(NarrowKeysKernel<T, kSoftCap, kWidth, kQueries, kStages>,
                        tiles * call.key_heads, sizeof(NarrowShared<kWidth, kQueries, kStages>),
                        call, stream);
}

}  // namespace osler::cuda::sm90
