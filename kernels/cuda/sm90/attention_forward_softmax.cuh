// The online softmax between the two products of attention, on a warpgroup's 64 × kKeys scores.
// Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv 1805.02867).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/device_functions.cuh"

namespace osler::cuda::sm90 {

__device__ inline float Tanh(float x) { return 1 - __fdividef(2, 1 + Exp2(x * (2 / kLn2))); }

// What happens to a score before it is an exponent of 2: s · to_log2, or with a soft cap c
// cap_log2 · tanh(s · by_cap), by_cap = scale / c and cap_log2 = c / ln 2.
struct ScoreScale {
  float to_log2, by_cap, cap_log2;
};

// A thread's two rows, 8 apart: the keys that each sees, and its softmax so far.
struct SoftmaxRows {
  int lo[2], hi[2];
  float max[2];  // of the scores or a little below, −∞ before the first
  float sum[2];  // of this thread's columns alone, relative to max
};

// Scores of keys that a row does not see become −∞; `first` is the key of this thread's column 0.
template <int kValues>
__device__ inline void MaskScores(float (&s)[kValues], const SoftmaxRows& rows, int first) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const unsigned count = static_cast<unsigned>(rows.hi[row] - rows.lo[row]);
    const int offset = first - rows.lo[row];
#pragma unroll
    for (int i = 0; i < kValues / 4; ++i) {
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        float& value = s[4 * i + 2 * row + column];
        if (static_cast<unsigned>(offset + 8 * i + column) >= count) value = -INFINITY;
      }
    }
  }
}

// Of the four lanes that hold a row.
__device__ inline float QuadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ inline float QuadSum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

template <int kValues>
__device__ inline void CapScores(float (&s)[kValues], const ScoreScale& scale) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) s[i] = scale.cap_log2 * Tanh(s[i] * scale.by_cap);
}

// A row's reference point stays while no score lies further above it than this, in powers of two:
// the quotient is the same, its terms are at most 2^8, and most tiles need no correction.
inline constexpr float kSlack = 8;

// Scores → e^(score − max) and the rows' new maxima and sums; `correction` is what earlier sums of
// those rows are to be multiplied by. `max` may be up to kSlack below the largest score.
template <int kValues>
__device__ inline void SoftmaxStep(float (&s)[kValues], SoftmaxRows& rows, float (&correction)[2],
                                   float to_log2) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float top = rows.max[row];
#pragma unroll
    for (int i = 0; i < kValues / 4; ++i) {
      top = fmaxf(top, fmaxf(s[4 * i + 2 * row], s[4 * i + 2 * row + 1]));
    }
    top = QuadMax(top);
    if ((top - rows.max[row]) * to_log2 <= kSlack) top = rows.max[row];  // not for −∞ − −∞
    const float base = top == -INFINITY ? 0 : top * to_log2;
    correction[row] = Exp2(rows.max[row] * to_log2 - base);
    rows.max[row] = top;
    float sum = rows.sum[row] * correction[row];
#pragma unroll
    for (int i = 0; i < kValues / 4; ++i) {
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        float& value = s[4 * i + 2 * row + column];
        value = Exp2(value * to_log2 - base);
        sum += value;
      }
    }
    rows.sum[row] = sum;
  }
}

}  // namespace osler::cuda::sm90
