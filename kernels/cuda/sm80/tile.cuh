// Tiles of 16-bit elements in shared memory: how they are laid out, filled and read.
//
// A row of kWidth elements is a row of 16-byte chunks. Chunks are permuted inside a row so that 8
// consecutive rows of one column of chunks lie in 8 different groups of 4 banks: ldmatrix then
// meets no bank conflict, whatever the width.
#pragma once

#include <algorithm>
#include <bit>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/sm80/instructions.cuh"

namespace osler::cuda::sm80 {

template <int kWidth>
struct TileLayout {
  static constexpr int kChunks = kWidth / 8;
  static constexpr int kRowBytes = kWidth * 2;
  // A row begins kChunks % 8 groups of banks after its predecessor: 8 / kPermuted rows lie apart
  // already, and a permutation of kPermuted chunks tells the others from them.
  static constexpr int kPermuted = std::min(8, kChunks & -kChunks);
  static constexpr int kRowShift = 3 - std::countr_zero(static_cast<unsigned>(kPermuted));

  static __device__ __forceinline__ uint32_t Offset(int row, int chunk) {
    const int permuted = chunk ^ ((row >> kRowShift) & (kPermuted - 1));
    return static_cast<uint32_t>(row * kRowBytes + permuted * 16);
  }
};

// Where a lane's ldmatrix row lies, relative to a 16×16 block at row 16i, column 16j: the
// permutation makes the column an exclusive or of the address, its part past it a sum.
template <int kWidth>
class LaneAddress {
 public:
  using Layout = TileLayout<kWidth>;

  // The order (rows 0-7, columns 0-7), (rows 8-15, columns 0-7), (rows 0-7, columns 8-15), ...: the
  // left operand of mma, and, transposed, the right one.
  static __device__ __forceinline__ LaneAddress RowsFirst(uint32_t tile, int lane) {
    return LaneAddress(tile + Layout::Offset(lane % 16, lane / 16));
  }
  // Columns 8-15 come second: the right operand of mma whose tile holds it transposed.
  static __device__ __forceinline__ LaneAddress ColumnsFirst(uint32_t tile, int lane) {
    return LaneAddress(tile + Layout::Offset(lane % 8 + lane / 16 * 8, lane / 8 % 2));
  }

  // The same lane in a tile `bytes` further on.
  __device__ __forceinline__ LaneAddress Plus(uint32_t bytes) const {
    return LaneAddress(base_ + bytes);
  }

  // A copy whose sums are not kept over a loop: registers are dearer than they are.
  __device__ __forceinline__ LaneAddress Afresh() const {
    LaneAddress copy = *this;
    asm volatile("" : "+r"(copy.base_));
    return copy;
  }

  __device__ __forceinline__ uint32_t At(int row, int block_column) const {
    const int chunk = 2 * block_column;
    const int permuted = chunk & (Layout::kPermuted - 1);
    return (base_ ^ static_cast<uint32_t>(permuted * 16)) +
           static_cast<uint32_t>(row * Layout::kRowBytes + (chunk - permuted) * 16);
  }

 private:
  explicit __device__ __forceinline__ LaneAddress(uint32_t base) : base_(base) {}
  uint32_t base_;
};

// Rows of one head in global memory. A stride of 32 bits makes an address one multiply-add.
struct HeadRows {
  const char* data;
  int stride;  // bytes
};

__device__ __forceinline__ HeadRows OfHead(const Rows& rows, int head) {
  return {static_cast<const char*>(rows.data) + head * rows.head_stride * 2,
          static_cast<int>(rows.token_stride * 2)};
}

// Starts the copies of kRows rows, of which `rows` exist: 0 past them and past `width`. A thread
// stays in its column of chunks, so that its addresses are one multiply-add each.
template <bool kWhole, int kRows, int kWidth, int kThreads>
__device__ __forceinline__ void CopyRows(uint32_t tile, const HeadRows& from, int rows, int width,
                                         unsigned thread) {
  using Layout = TileLayout<kWidth>;
  constexpr int kStep = kThreads / Layout::kChunks;  // rows at a time
  // Not to be taken for the same in every call: what follows from them, kept over a loop, would
  // fill the registers.
  int stride = from.stride;
  asm volatile("" : "+r"(thread), "+r"(stride));
  const int row = static_cast<int>(thread / Layout::kChunks);
  const int chunk = static_cast<int>(thread % Layout::kChunks);
  if (kThreads % Layout::kChunks != 0 && row >= kStep) return;
  const char* const source = from.data + chunk * 16 + static_cast<int64_t>(row) * stride;
  const int rows_left = chunk * 8 < width ? (kWhole ? kRows : rows) - row : 0;
#pragma unroll
  for (int i = 0; i < kRows; i += kStep) {
    if (i + kStep > kRows && row + i >= kRows) break;
    const bool exists = kWhole ? rows_left > 0 : rows_left > i;
    CopyAsync(tile + Layout::Offset(row + i, chunk), source + static_cast<int64_t>(stride) * i,
              exists ? 16 : 0);
  }
}

// Rows first..first + kRows of a head that has `rows`.
template <int kRows, int kWidth, int kThreads>
__device__ __forceinline__ void LoadTile(uint32_t tile, const HeadRows& from, int first, int rows,
                                         int width, unsigned thread = threadIdx.x) {
  const HeadRows at = {from.data + static_cast<int64_t>(first) * from.stride, from.stride};
  if (first + kRows <= rows) {
    CopyRows<true, kRows, kWidth, kThreads>(tile, at, kRows, width, thread);
  } else {
    CopyRows<false, kRows, kWidth, kThreads>(tile, at, rows - first, width, thread);
  }
}

// The same from rows of fp32, rounded: with no copy in flight, so slower.
template <Element kElement, int kRows, int kWidth, int kThreads>
__device__ __forceinline__ void LoadRounded(uint32_t tile, const Rows& from, int head, int first,
                                            int rows, int width, unsigned thread) {
  using Layout = TileLayout<kWidth>;
#pragma unroll 1
  for (int at = thread; at < kRows * Layout::kChunks; at += kThreads) {
    const int row = at / Layout::kChunks, chunk = at % Layout::kChunks;
    uint32_t words[4] = {};
    if (first + row < rows && chunk * 8 < width) {
      float values[8];
      Load8(from.data, (first + row) * from.token_stride + head * from.head_stride + chunk * 8,
            Element::kFp32, values);
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i] = Pack<kElement>(values[2 * i], values[2 * i + 1]);
    }
    StoreShared(tile + Layout::Offset(row, chunk), words);
  }
}

// grad_out is of the type of the matrix products, or of fp32.
template <Element kElement, int kRows, int kWidth, int kThreads>
__device__ __forceinline__ void LoadGradOut(uint32_t tile, const AttentionBackward& p, int head,
                                            int first, unsigned thread = threadIdx.x) {
  if (p.out_element == Element::kFp32) {
    LoadRounded<kElement, kRows, kWidth, kThreads>(tile, p.grad_out, head, first, p.in.queries,
                                                   p.in.width, thread);
  } else {
    LoadTile<kRows, kWidth, kThreads>(tile, OfHead(p.grad_out, head), first, p.in.queries,
                                      p.in.width, thread);
  }
}

}  // namespace osler::cuda::sm80
