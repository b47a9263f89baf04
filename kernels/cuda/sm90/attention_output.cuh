// From a warpgroup's accumulators to rows in device memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/sm90/wgmma.cuh"

namespace osler::cuda::sm90 {

// One row of this quad: columns [0, width) of 2-byte elements, 16 bytes a lane and store. `values`
// is the whole accumulator, `row` 0 or 1: which of the thread's rows. All lanes take part; where
// `to` is null nothing is stored.
template <class T, int kValues>
__device__ inline void StoreRow(char* to, const float (&values)[kValues], int row, float factor,
                                int width) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < kValues / 16; ++i) {
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = 4 * (4 * i + j) + 2 * row;
      words[j] = PackPair(values[at] * factor, values[at + 1] * factor, T{});
    }
    TransposeQuad(words, t);
    const int column = 8 * (4 * i + t);
    if (to != nullptr && column < width) {
      *reinterpret_cast<uint4*>(to + column * 2) = {words[0], words[1], words[2], words[3]};
    }
  }
}

// The same in fp32.
template <int kValues>
__device__ inline void StoreRowFp32(char* to, const float (&values)[kValues], int row, float factor,
                                    int width) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < kValues / 4; ++i) {
    const int column = 8 * i + 2 * t;
    if (to != nullptr && column < width) {
      const int at = 4 * i + 2 * row;
      *reinterpret_cast<float2*>(to + column * 4) = {values[at] * factor, values[at + 1] * factor};
    }
  }
}

// Where rows of a tensor go, and in which element.
struct OutputRows {
  char* data;
  int64_t token_bytes, head_bytes;
  bool fp32;

  __device__ char* Row(int token, int head) const {
    return data + token * token_bytes + head * head_bytes;
  }
};
inline OutputRows MakeOutputRows(const Rows& rows, Element element) {
  const int bytes = element == Element::kFp32 ? 4 : 2;
  return {static_cast<char*>(rows.data), rows.token_stride * bytes, rows.head_stride * bytes,
          element == Element::kFp32};
}

// A thread's two rows, at `tokens`, each times its factor; rows from `end` on are not stored.
template <class T, int kValues>
__device__ inline void StoreRows(const OutputRows& out, const float (&values)[kValues],
                                 const int (&tokens)[2], int end, int head,
                                 const float (&factors)[2], int width) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    char* to = tokens[row] < end ? out.Row(tokens[row], head) : nullptr;
    if (out.fp32) {
      StoreRowFp32(to, values, row, factors[row], width);
    } else {
      StoreRow<T>(to, values, row, factors[row], width);
    }
  }
}

}  // namespace osler::cuda::sm90
