// What one warp does with a tile of 16·kBlocks rows: matrix products, and its results' way out.
#pragma once

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/sm80/tile.cuh"

namespace osler::cuda::sm80 {

// In mma's layout: of the 16×8 block [i][j], this lane's four.
template <int kBlocks, int kColumns>
using Sums = float[kBlocks][kColumns / 8][4];

// The same values as a left operand, in 16×16 blocks.
template <int kBlocks, int kColumns>
using Operand = uint32_t[kBlocks][kColumns / 16][4];

template <int kBlocks, int kColumns>
__device__ __forceinline__ void Clear(float (&sums)[kBlocks][kColumns][4]) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;
}

template <int kBlocks, int kColumns>
__device__ __forceinline__ void Scale(float (&sums)[kBlocks][kColumns][4], float factor) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] *= factor;
}

template <Element kElement, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void ToOperand(const float (&sums)[kBlocks][kBlockColumns][4],
                                          uint32_t (&operand)[kBlocks][kBlockColumns / 2][4]) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int j = 0; j < kBlockColumns; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        operand[i][j / 2][j % 2 * 2 + e] = Pack<kElement>(sums[i][j][2 * e], sums[i][j][2 * e + 1]);
}

// sums = left · rightᵀ, both tiles of kWidth columns; `left` begins at this warp's rows.
template <Element kElement, int kWidth, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void MultiplyTransposed(float (&sums)[kBlocks][kBlockColumns][4],
                                                   const LaneAddress<kWidth>& left_tile,
                                                   const LaneAddress<kWidth>& right_tile) {
  const auto left = left_tile.Afresh(), right = right_tile.Afresh();
  Clear(sums);
#pragma unroll
  for (int k = 0; k < kWidth / 16; ++k) {
    uint32_t a[kBlocks][4];
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) LoadMatrices(a[i], left.At(16 * i, k));
#pragma unroll
    for (int j = 0; j < kBlockColumns / 2; ++j) {
      uint32_t b[4];
      LoadMatrices(b, right.At(16 * j, k));
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        Multiply<kElement>(sums[i][2 * j], a[i], b[0], b[1]);
        Multiply<kElement>(sums[i][2 * j + 1], a[i], b[2], b[3]);
      }
    }
  }
}

// The whole width of a tile's rows as left operands.
template <int kWidth, int kBlocks>
__device__ __forceinline__ void LoadOperand(uint32_t (&operand)[kBlocks][kWidth / 16][4],
                                            const LaneAddress<kWidth>& rows) {
#pragma unroll
  for (int k = 0; k < kWidth / 16; ++k)
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) LoadMatrices(operand[i][k], rows.At(16 * i, k));
}

// sums = left · rightᵀ, `left` in registers.
template <Element kElement, int kWidth, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void MultiplyTransposed(float (&sums)[kBlocks][kBlockColumns][4],
                                                   const uint32_t (&left)[kBlocks][kWidth / 16][4],
                                                   const LaneAddress<kWidth>& right_tile) {
  const auto right = right_tile.Afresh();
  Clear(sums);
#pragma unroll
  for (int k = 0; k < kWidth / 16; ++k)
#pragma unroll
    for (int j = 0; j < kBlockColumns / 2; ++j) {
      uint32_t b[4];
      LoadMatrices(b, right.At(16 * j, k));
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        Multiply<kElement>(sums[i][2 * j], left[i][k], b[0], b[1]);
        Multiply<kElement>(sums[i][2 * j + 1], left[i][k], b[2], b[3]);
      }
    }
}

// sums += left · right, `right` a tile of 16·kSteps rows and kWidth columns.
template <Element kElement, int kWidth, int kBlocks, int kSteps>
__device__ __forceinline__ void MultiplyAdd(float (&sums)[kBlocks][kWidth / 8][4],
                                            const uint32_t (&left)[kBlocks][kSteps][4],
                                            const LaneAddress<kWidth>& right_tile) {
  const auto right = right_tile.Afresh();
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int j = 0; j < kWidth / 16; ++j) {
      uint32_t b[4];
      LoadMatricesTransposed(b, right.At(16 * k, j));
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        Multiply<kElement>(sums[i][2 * j], left[i][k], b[0], b[1]);
        Multiply<kElement>(sums[i][2 * j + 1], left[i][k], b[2], b[3]);
      }
    }
  }
}

// One row of a warp's sums, `half` 0 or 1 of block i, as 16-bit elements in stores of 16 bytes.
template <Element kElement, int kBlockColumns>
__device__ __forceinline__ void StoreRow(const float (&sums)[kBlockColumns][4], int half,
                                         uint16_t* row, int width, int lane) {
#pragma unroll
  for (int j = 0; j < kBlockColumns; j += 4) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int from = j + i < kBlockColumns ? j + i : kBlockColumns - 1;
      words[i] = Pack<kElement>(sums[from][2 * half], sums[from][2 * half + 1]);
    }
    TransposeQuad(words, lane);
    const int column = (j + lane % 4) * 8;
    if (row != nullptr && column < width)
      *reinterpret_cast<uint4*>(row + column) = {words[0], words[1], words[2], words[3]};
  }
}

template <int kBlockColumns>
__device__ __forceinline__ void StoreRow(const float (&sums)[kBlockColumns][4], int half,
                                         float* row, int width, int lane) {
#pragma unroll
  for (int j = 0; j < kBlockColumns; ++j) {
    if (row != nullptr && j * 8 < width)
      *reinterpret_cast<float2*>(row + j * 8 + lane % 4 * 2) = {sums[j][2 * half],
                                                                sums[j][2 * half + 1]};
  }
}

// Rows first.. of one head, of kElement or fp32, as far as there are `rows` of them.
template <Element kElement, int kBlocks, int kBlockColumns>
__device__ __forceinline__ void StoreRows(const float (&sums)[kBlocks][kBlockColumns][4],
                                          const Rows& to, Element element, int head, int first,
                                          int rows, int width, int lane) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 16 * i + 8 * half + lane / 4;
      const int64_t at = row * to.token_stride + head * to.head_stride;
      if (element == Element::kFp32) {
        StoreRow(sums[i], half, row < rows ? static_cast<float*>(to.data) + at : nullptr, width,
                 lane);
      } else {
        StoreRow<kElement>(sums[i], half,
                           row < rows ? static_cast<uint16_t*>(to.data) + at : nullptr, width,
                           lane);
      }
    }
}

}  // namespace osler::cuda::sm80
