// dQ: a block owns 128 queries of one head, each multiplying warpgroup 64 of them, and passes over
// the keys that any of them sees.
#pragma once

#include "kernels/cuda/sm90/backward.cuh"

namespace osler::cuda::sm90 {

inline constexpr int kBlockQueries = 128;

template <int kWidth, int kKeys, int kKeyStages, int kValueStages>
struct alignas(1024) QueriesShared {
  char q[kBlockQueries * kWidth * 2], grad_out[kBlockQueries * kWidth * 2];
  char k[kKeyStages][kKeys * kWidth * 2];
  char v[kValueStages][kKeys * kWidth * 2];
  Mbarrier q_full, grad_out_full;
  Mbarrier k_full[kKeyStages], k_empty[kKeyStages];
  Mbarrier v_full[kValueStages], v_empty[kValueStages];
};

// The two rows of S that a thread holds parts of.
struct ThreadRows {
  float lse2[2], delta[2];
  int32_t lo[2], hi[2];
};

__device__ inline ThreadRows LoadThreadRows(const BackwardCall& call, int head, int first_query) {
  ThreadRows rows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = first_query + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + half * 8;
    const bool exists = query < call.queries;
    const int64_t index = static_cast<int64_t>(head) * call.padded_queries + query;
    rows.lse2[half] = exists ? __ldg(call.lse2 + index) : __int_as_float(0x7f800000);
    rows.delta[half] = exists ? __ldg(call.delta + index) : 0.0f;
    rows.lo[half] = exists ? __ldg(call.lo + query) : 0;
    rows.hi[half] = exists ? __ldg(call.hi + query) : 0;
  }
  return rows;
}

// Keys that some of a range of queries see, and those that all see.
struct KeyRange {
  int32_t begin, end, inside_begin, inside_end;

  __device__ bool Skips(int key, int count) const { return key + count <= begin || key >= end; }
  __device__ bool IsInside(int key, int count) const {
    return key >= inside_begin && key + count <= inside_end;
  }
};

__device__ inline KeyRange FindKeyRange(const BackwardCall& call, int first_query, int count) {
  if (first_query >= call.queries) return KeyRange{0, 0, 0, 0};
  const int last = min(first_query + count, call.queries) - 1;
  return KeyRange{__ldg(call.lo + first_query), __ldg(call.hi + last), __ldg(call.lo + last),
                  __ldg(call.hi + first_query)};
}

template <int kWidth, int kKeys, int kKeyStages, int kValueStages>
__device__ inline void LoadKeyTiles(
    const BackwardCall& call, KeyRange range, int key_head,
    QueriesShared<kWidth, kKeys, kKeyStages, kValueStages>& shared) {
  RingPosition<kKeyStages> k_at;
  RingPosition<kValueStages> v_at;
#pragma unroll 1
  for (int key = range.begin; key < range.end; key += kKeys, k_at.Next(), v_at.Next()) {
    Mbarrier* full = &shared.k_full[k_at.stage];
    shared.k_empty[k_at.stage].Wait(k_at.parity ^ 1);
    full->ArriveExpecting(sizeof(shared.k[0]));
    LoadTile<kWidth, kKeys>(shared.k[k_at.stage], &call.k, full, key, key_head);
    full = &shared.v_full[v_at.stage];
    shared.v_empty[v_at.stage].Wait(v_at.parity ^ 1);
    full->ArriveExpecting(sizeof(shared.v[0]));
    LoadTile<kWidth, kKeys>(shared.v[v_at.stage], &call.v, full, key, key_head);
  }
}

// A warpgroup's products s, of which this thread's first column is `key`, to P'.
template <bool kSoftCap, bool kEdge, int kKeys>
__device__ inline void Probabilities(float (&s)[kKeys / 2], const ThreadRows& rows, int key,
                                     const BackwardCall& call) {
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) {
    const int half = i / 2 % 2;
    float slope;
    float p = Probability<kSoftCap>(s[i], rows.lse2[half], call, &slope);
    if (kEdge) {
      const int column = key + i / 4 * 8 + i % 2;
      p = column >= rows.lo[half] && column < rows.hi[half] ? p : 0.0f;
    }
    s[i] = kSoftCap ? p * slope : p;
  }
}
// The same of a tile of keys from first_key on.
template <bool kSoftCap, int kKeys>
__device__ inline void Probabilities(float (&s)[kKeys / 2], const ThreadRows& rows, int first_key,
                                     bool inside, const BackwardCall& call) {
  const int key = first_key + threadIdx.x % 4 * 2;
  if (inside) {
    Probabilities<kSoftCap, false, kKeys>(s, rows, key, call);
  } else {
    Probabilities<kSoftCap, true, kKeys>(s, rows, key, call);
  }
}

// dS = P' (dP − delta), rounded.
template <class T, int kKeys>
__device__ inline void Gradients(uint32_t (&grad_s)[kKeys / 4], const float (&p)[kKeys / 2],
                                 const float (&grad_p)[kKeys / 2], const ThreadRows& rows) {
#pragma unroll
  for (int i = 0; i < kKeys / 4; ++i) {
    const float delta = rows.delta[i % 2];
    grad_s[i] = PackPair(p[2 * i] * (grad_p[2 * i] - delta),
                         p[2 * i + 1] * (grad_p[2 * i + 1] - delta), T{});
  }
}

// A multiplying warpgroup at its tiles of keys. Turns pay as long as the values have two buffers:
// with one, whose turn it is mostly waits for both to be done with the last.
template <class T, bool kSoftCap, int kWidth, int kKeys, int kKeyStages, int kValueStages,
          class Turns>
class QueriesGroup {
 public:
  using Shared = QueriesShared<kWidth, kKeys, kKeyStages, kValueStages>;

  // `group` is 0 or 1, and its first query `first`.
  __device__ QueriesGroup(const BackwardCall& call, Shared& shared, int head, int first, int group)
      : call_(call),
        shared_(shared),
        range_(FindKeyRange(call, first, 64)),
        rows_(LoadThreadRows(call, head, first)),
        offset_(group * 64 * 128),
        turns_(group) {}

  // dQ of the warpgroup's queries, before the scale.
  __device__ void Multiply(KeyRange walk, float (&grad_q)[kWidth / 2]) {
    shared_.q_full.Wait(0);
    for (int key = walk.begin; key < walk.end; key += kKeys, k_at_.Next(), v_at_.Next()) {
      if (range_.Skips(key, kKeys)) {
        Skip();
      } else {
        Step(key, grad_q);
      }
    }
    turns_.End();
    WgmmaWait<0>();
    HoldRegisters(grad_q);
    shared_.grad_out_full.Wait(0);  // also where there was no step
  }

 private:
  __device__ void Skip() {
    WgmmaWait<0>();
    ReleaseKeys();
    shared_.k_full[k_at_.stage].Wait(k_at_.parity);
    Release(&shared_.k_empty[k_at_.stage]);
    shared_.v_full[v_at_.stage].Wait(v_at_.parity);
    Release(&shared_.v_empty[v_at_.stage]);
    turns_.Skip();
  }

  __device__ void Step(int key, float (&grad_q)[kWidth / 2]) {
    const int k_stage = Uniform(k_at_.stage);
    const int v_stage = Uniform(v_at_.stage);
    float s[kKeys / 2];
    float grad_p[kKeys / 2];
    uint32_t grad_s[kKeys / 4];
    shared_.k_full[k_stage].Wait(k_at_.parity);
    WgmmaFence();
    MultiplyRows<kKeys, kWidth, T>(s, shared_.q + offset_, kBlockQueries, shared_.k[k_stage], kKeys,
                                   false);
    WgmmaCommit();
    shared_.v_full[v_stage].Wait(v_at_.parity);
    shared_.grad_out_full.Wait(0);
    WgmmaFence();
    MultiplyRows<kKeys, kWidth, T>(grad_p, shared_.grad_out + offset_, kBlockQueries,
                                   shared_.v[v_stage], kKeys, false);
    WgmmaCommit();
    turns_.Pass();
    WgmmaWait<2>();  // the step before is done
    ReleaseKeys();
    WgmmaWait<1>();
    HoldRegisters(s);
    Probabilities<kSoftCap, kKeys>(s, rows_, key, range_.IsInside(key, kKeys), call_);
    WgmmaWait<0>();
    HoldRegisters(grad_p);
    Release(&shared_.v_empty[v_stage]);
    Gradients<T, kKeys>(grad_s, s, grad_p, rows_);
    turns_.TakeAfter(grad_s);
    WgmmaFence();
    MultiplyColumns<kWidth, kKeys, T>(grad_q, grad_s, shared_.k[k_stage], kKeys, true);
    WgmmaCommit();
    unreleased_ = &shared_.k_empty[k_stage];
  }

  __device__ void ReleaseKeys() {
    if (unreleased_ != nullptr) Release(unreleased_);
    unreleased_ = nullptr;
  }

  const BackwardCall& call_;
  Shared& shared_;
  const KeyRange range_;
  const ThreadRows rows_;
  const int offset_;  // to the group's queries within a panel
  Turns turns_;
  RingPosition<kKeyStages> k_at_;
  RingPosition<kValueStages> v_at_;
  Mbarrier* unreleased_ = nullptr;  // the keys of a step that may not be done
};

template <int kWidth, int kKeys, int kKeyStages, int kValueStages>
__device__ inline void StartQueries(
    const BackwardCall& call, int first_query, int head,
    QueriesShared<kWidth, kKeys, kKeyStages, kValueStages>& shared) {
  shared.q_full.Init(1);
  shared.grad_out_full.Init(1);
  for (int i = 0; i < kKeyStages; ++i) {
    shared.k_full[i].Init(1);
    shared.k_empty[i].Init(8);
  }
  for (int i = 0; i < kValueStages; ++i) {
    shared.v_full[i].Init(1);
    shared.v_empty[i].Init(8);
  }
  FenceBarrierInit();
  shared.q_full.ArriveExpecting(sizeof(shared.q));
  LoadTile<kWidth, kBlockQueries>(shared.q, &call.q, &shared.q_full, first_query, head);
  shared.grad_out_full.ArriveExpecting(sizeof(shared.grad_out));
  LoadTile<kWidth, kBlockQueries>(shared.grad_out, &call.grad_out, &shared.grad_out_full,
                                  first_query, head);
}

template <class T, bool kSoftCap, int kWidth, int kKeys, int kKeyStages, int kValueStages,
          class Turns>
__global__ void __launch_bounds__(kBlockThreads, 1)
    QueriesKernel(const __grid_constant__ BackwardCall call) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<QueriesShared<kWidth, kKeys, kKeyStages, kValueStages>*>(memory);
  const int head = blockIdx.x % call.heads;
  const int tiles = (call.queries + kBlockQueries - 1) / kBlockQueries;
  const int first_query = (tiles - 1 - blockIdx.x / call.heads) * kBlockQueries;
  const int warp = Uniform(threadIdx.x / 32);
  if (threadIdx.x == 0) StartQueries(call, first_query, head, shared);
  __syncthreads();
  const KeyRange walk = FindKeyRange(call, first_query, kBlockQueries);
  if (warp < 4) {
    ShrinkRegisters<kLoadingRegisters>();
    if (threadIdx.x == 0) {
      LoadKeyTiles(call, walk, head / (call.heads / call.key_heads), shared);
    }
  } else {
    GrowRegisters<kMultiplyingRegisters>();
    const int group = warp / 4 - 1;
    const int first = first_query + group * 64;
    QueriesGroup<T, kSoftCap, kWidth, kKeys, kKeyStages, kValueStages, Turns> multiplying(
        call, shared, head, first, group);
    float grad_q[kWidth / 2] = {};
    HoldRegisters(grad_q);
    multiplying.Multiply(walk, grad_q);
    StoreGradients<T>(grad_q, call.scale, call.grad_q, head, first, call.queries, call.width);
  }
}

template <class T, bool kSoftCap, int kWidth, int kKeys, int kKeyStages, int kValueStages,
          class Turns>
int LaunchQueries(const AttentionBackward& arguments, cudaStream_t stream) {
  BackwardCall call = DescribeBackward(arguments);
  if (!MapTiles(&call, arguments, kBlockQueries, kKeys)) return kUnsupported;
  const int64_t tiles = (call.queries + kBlockQueries - 1) / kBlockQueries;
  return LaunchBackward(QueriesKernel<T, kSoftCap, kWidth, kKeys, kKeyStages, kValueStages, Turns>,
                        tiles * call.heads,
                        sizeof(QueriesShared<kWidth, kKeys, kKeyStages, kValueStages>), call,
                        stream);
}

}  // namespace osler::cuda::sm90
