// What the kernels of dK and dV share. A block owns a tile of keys of one key head and passes over
// the queries that see any of it, a head of the group after the other; scores are transposed, a row
// a key.
#pragma once

#include "kernels/cuda/sm90/backward.cuh"

namespace osler::cuda::sm90 {

// Of a tile's queries.
template <int kQueries>
struct QueryValues {
  float lse2[kQueries], delta[kQueries];
  int32_t lo[kQueries], hi[kQueries];
};

// The queries [begin, end) see a key of a tile, [inside_begin, inside_end) among them see all.
struct QueryRange {
  int32_t begin, end, inside_begin, inside_end;

  __device__ explicit QueryRange(const int32_t (&found)[4])
      : begin(found[0]), end(found[1]), inside_begin(found[2]), inside_end(found[3]) {}

  __device__ bool Skips(int query, int count) const {
    return query + count <= begin || query >= end;
  }
  __device__ bool IsInside(int query, int count) const {
    return query >= inside_begin && query + count <= inside_end;
  }
};

// Number `which` of what QueryRange is made of, for the keys [first_key, first_key + key_count); by
// a whole warp.
__device__ inline int32_t FindRangeEnd(const BackwardCall& call, int first_key, int key_count,
                                       int which) {
  const int end_key = min(first_key + key_count, call.keys);
  const bool by_hi = which % 2 == 0;
  const int bound = which == 0 || which == 3 ? first_key + 1 : end_key;
  return FirstAtLeast(by_hi ? call.hi : call.lo, call.queries, bound);
}

// The order in which a block passes over (head, tile of queries).
template <int kQueries>
struct QueryWalk {
  int begin, end, first_head, heads;

  __device__ int Tiles() const { return max(0, end - begin + kQueries - 1) / kQueries; }
  __device__ int Steps() const { return Tiles() * heads; }
};

// A step of that walk.
template <int kQueries>
struct QueryStep {
  int head, query;

  __device__ explicit QueryStep(const QueryWalk<kQueries>& walk)
      : head(walk.first_head), query(walk.begin) {}
  __device__ void Next(const QueryWalk<kQueries>& walk) {
    query += kQueries;
    if (query >= walk.end) {
      query = walk.begin;
      ++head;
    }
  }
};

// Fills `values` of each step; called by kQueries threads, counted in by `full`, each with its row.
template <int kQueries, int kStages>
__device__ inline void LoadQueryValues(const BackwardCall& call, const QueryWalk<kQueries>& walk,
                                       int row, QueryValues<kQueries> (&values)[kStages],
                                       Mbarrier (&full)[kStages], Mbarrier (&empty)[kStages]) {
  const int steps = walk.Steps();
  RingPosition<kStages> at;
  QueryStep<kQueries> step(walk);
#pragma unroll 1  // unrolled by the stages it would need more registers than it has
  for (int n = 0; n < steps; ++n, at.Next(), step.Next(walk)) {
    const int query = step.query + row;
    const bool exists = query < call.queries;
    const int64_t index = static_cast<int64_t>(step.head) * call.padded_queries + query;
    const float lse2 = exists ? __ldg(call.lse2 + index) : __int_as_float(0x7f800000);
    const float delta = exists ? __ldg(call.delta + index) : 0.0f;
    const int32_t lo = exists ? __ldg(call.lo + query) : 0;
    const int32_t hi = exists ? __ldg(call.hi + query) : 0;
    empty[at.stage].Wait(at.parity ^ 1);
    QueryValues<kQueries>& to = values[at.stage];
    to.lse2[row] = lse2;
    to.delta[row] = delta;
    to.lo[row] = lo;
    to.hi[row] = hi;
    full[at.stage].Arrive();
  }
}

// A warpgroup's transposed products s, of 64 keys, of which this thread's first is `key`, to
// probabilities: rounded in `p`, and in s times the soft cap's slope.
template <class T, bool kSoftCap, bool kEdge, int kQueries>
__device__ inline void TransposedProbabilities(float (&s)[kQueries / 2],
                                               uint32_t (&p)[kQueries / 4],
                                               const QueryValues<kQueries>& values, int key,
                                               const BackwardCall& call) {
#pragma unroll
  for (int j = 0; j < kQueries / 8; ++j) {
    const int column = 8 * j + threadIdx.x % 4 * 2;
    const float2 lse2 = *reinterpret_cast<const float2*>(values.lse2 + column);
    const int2 lo = kEdge ? *reinterpret_cast<const int2*>(values.lo + column) : int2{};
    const int2 hi = kEdge ? *reinterpret_cast<const int2*>(values.hi + column) : int2{};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* pair = s + 4 * j + 2 * half;
      const int row = key + 8 * half;
      float slopes[2];
      float low = Probability<kSoftCap>(pair[0], lse2.x, call, &slopes[0]);
      float high = Probability<kSoftCap>(pair[1], lse2.y, call, &slopes[1]);
      if (kEdge) {
        low = row >= lo.x && row < hi.x ? low : 0.0f;
        high = row >= lo.y && row < hi.y ? high : 0.0f;
      }
      p[2 * j + half] = PackPair(low, high, T{});
      pair[0] = kSoftCap ? low * slopes[0] : low;
      pair[1] = kSoftCap ? high * slopes[1] : high;
    }
  }
}
template <class T, bool kSoftCap, int kQueries>
__device__ inline void TransposedProbabilities(float (&s)[kQueries / 2],
                                               uint32_t (&p)[kQueries / 4],
                                               const QueryValues<kQueries>& values, int key,
                                               bool inside, const BackwardCall& call) {
  if (inside) {
    TransposedProbabilities<T, kSoftCap, false>(s, p, values, key, call);
  } else {
    TransposedProbabilities<T, kSoftCap, true>(s, p, values, key, call);
  }
}

}  // namespace osler::cuda::sm90
