// Row intervals in a tile: which of its scores are seen. Both ends never decrease, so the first and
// the last row of a tile speak for those between.
#pragma once

#include "kernels/cuda/sm80/instructions.cuh"

namespace osler::cuda::sm80 {

enum class Seen { kNone, kSome, kAll };

// What a run of rows sees.
struct Intervals {
  int first_lo, first_hi, last_lo, last_hi;

  __device__ __forceinline__ Seen Of(int key_begin, int key_end) const {
    // Without branches: all four are asked for at once.
    const bool none = (last_hi <= key_begin) | (first_lo >= key_end);
    const bool all = (last_lo <= key_begin) & (key_end <= first_hi);
    return none ? Seen::kNone : all ? Seen::kAll : Seen::kSome;
  }
};

// Rows first..first + kRows, those past the last one as the last one, into shared memory.
template <int kRows>
__device__ __forceinline__ void StageIntervals(const AttentionInput& in, int first, int32_t* lo,
                                               int32_t* hi) {
  for (int row = threadIdx.x; row < kRows; row += blockDim.x) {
    const int query = min(first + row, in.queries - 1);
    lo[row] = in.lo[query];
    hi[row] = in.hi[query];
  }
}

__device__ __forceinline__ Intervals OfRows(const int32_t* lo, const int32_t* hi, int first,
                                            int last) {
  return {lo[first], hi[first], lo[last], hi[last]};
}

// −∞ for the keys that a row does not see; scores of queries (rows, of the warp, from `lo`, `hi`
// on) by keys from key_begin.
template <int kBlocks, int kBlockColumns>
__device__ __forceinline__ void HideKeys(float (&scores)[kBlocks][kBlockColumns][4],
                                         const int32_t* lo, const int32_t* hi, int key_begin,
                                         int lane) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = 16 * i + 8 * half + lane / 4;
      const int begin = lo[row] - key_begin - lane % 4 * 2;
      const auto length = static_cast<unsigned>(hi[row] - lo[row]);
#pragma unroll
      for (int j = 0; j < kBlockColumns; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const bool seen = static_cast<unsigned>(8 * j + e - begin) < length;
          if (!seen) scores[i][j][2 * half + e] = -INFINITY;
        }
    }
}

// The same for keys (rows, from `key` on) by queries (columns, from `lo`, `hi` on).
template <int kBlocks, int kBlockColumns>
__device__ __forceinline__ void HideQueries(float (&scores)[kBlocks][kBlockColumns][4],
                                            const int32_t* lo, const int32_t* hi, int key,
                                            int lane) {
#pragma unroll
  for (int j = 0; j < kBlockColumns; ++j) {
    const int column = 8 * j + lane % 4 * 2;
    const int2 begin = *reinterpret_cast<const int2*>(lo + column);
    const int2 end = *reinterpret_cast<const int2*>(hi + column);
    const int begins[2] = {begin.x, begin.y};
    const unsigned lengths[2] = {static_cast<unsigned>(end.x - begin.x),
                                 static_cast<unsigned>(end.y - begin.y)};
#pragma unroll
    for (int i = 0; i < kBlocks; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = key + 16 * i + e / 2 * 8 + lane / 4;
        const bool seen = static_cast<unsigned>(row - begins[e % 2]) < lengths[e % 2];
        if (!seen) scores[i][j][e] = -INFINITY;
      }
  }
}

// The first i with values[i] > bound, else count, in a non-decreasing row: by a whole warp, which
// asks 32 places at once.
__device__ __forceinline__ int FirstAbove(const int32_t* values, int count, int bound, int lane) {
  int low = 0, high = count;
  while (low < high) {
    const int step = (high - low + 31) / 32;
    const int at = low + lane * step;
    const int below = __popc(__ballot_sync(~0u, at < high && values[at] <= bound));
    high = min(high, low + below * step);
    if (below > 0) low += (below - 1) * step + 1;
  }
  return low;
}

}  // namespace osler::cuda::sm80
