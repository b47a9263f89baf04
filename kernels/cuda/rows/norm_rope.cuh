// What the forward and the backward kernel of normalisation and rotation share.
#pragma once

#include <bit>

#include "kernels/cuda/norm_rope.h"
#include "kernels/cuda/rows/launch.h"
#include "kernels/cuda/rows/reduce.cuh"

namespace osler::cuda {

inline constexpr int kRopeThreads = 256, kMaxHeadWidth = 512;
inline constexpr int kHeadsAtATime = 2;  // of one token: they share what is read of the tables

// A head is held by a group of neighbouring lanes, a power of two; each has kPairs packs of its
// first half, and those at the same places of its second half, which they turn with.
template <typename T, int kLanes>
inline constexpr int kHeadPairs = kLanes == 1 ? kMaxHeadWidth / 64 : 1;

inline int GroupLanes(int width, int lanes) {
  return std::min(
      32, static_cast<int>(std::bit_ceil(static_cast<unsigned>(CeilDiv(width / 2, lanes)))));
}

template <typename T, int kLanes>
struct HeadPacks {
  static constexpr int kPairs = kHeadPairs<T, kLanes>;
  Pack<T, kLanes> first[kPairs], second[kPairs];
};

// Where a thread works: items are a token's heads, kHeadsAtATime at a time.
struct RopeWalk {
  int lane, group;
  int64_t item, items, step;
  int items_a_token;

  __device__ RopeWalk(const RopeShape& shape, int group_lanes) {
    lane = static_cast<int>(threadIdx.x) % group_lanes;
    group = static_cast<int>(threadIdx.x) / group_lanes;
    const int groups = kRopeThreads / group_lanes;
    items_a_token = (shape.heads + kHeadsAtATime - 1) / kHeadsAtATime;
    items = shape.tokens * items_a_token;
    item = int64_t{blockIdx.x} * groups + group;
    step = int64_t{gridDim.x} * groups;
  }
  __device__ int64_t token() const { return item / items_a_token; }
  __device__ int head() const { return static_cast<int>(item % items_a_token) * kHeadsAtATime; }
};

__device__ inline int64_t At(const Rows& rows, int64_t token, int head) {
  return token * rows.token_stride + head * rows.head_stride;
}

// Lanes past the half of a head hold zeros, so that they may take part in its sums.
template <typename T, int kLanes>
__device__ inline HeadPacks<T, kLanes> LoadHead(const void* data, int64_t at, int half, int lane,
                                                int group_lanes, bool present) {
  HeadPacks<T, kLanes> head = {};
#pragma unroll
  for (int k = 0; k < kHeadPairs<T, kLanes>; ++k) {
    const int i = (lane + k * group_lanes) * kLanes;
    if (!present || i >= half) continue;
    head.first[k] = LoadPack<T, kLanes>(data, at + i);
    head.second[k] = LoadPack<T, kLanes>(data, at + half + i);
  }
  return head;
}

// Tables are fp32; models round them to the values' type before they multiply.
template <typename T, int kLanes>
struct Turn {
  float cos[kLanes], sin[kLanes];

  __device__ Turn(const RopeShape& shape, int64_t token, int i) {
    const Pack<Fp32, kLanes> c = LoadPack<Fp32, kLanes>(shape.cos, token * shape.width + i);
    const Pack<Fp32, kLanes> s = LoadPack<Fp32, kLanes>(shape.sin, token * shape.width + i);
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      cos[lane] = Rounded<T>(c[lane]);
      sin[lane] = Rounded<T>(s[lane]) * shape.direction;
    }
  }
};

template <typename T>
bool RopeIsWide(const RopeShape& shape) {
  return shape.width % (2 * kWideLanes<T>) == 0 && shape.width <= 64 * kWideLanes<T> &&
         AllAligned16(shape.cos, shape.sin);
}

template <typename T>
bool RowsAreWide(const Rows& rows) {
  return Aligned16(rows.data) && rows.token_stride % kWideLanes<T> == 0 &&
         rows.head_stride % kWideLanes<T> == 0;
}

inline int RopeBlocks(const RopeShape& shape, int group_lanes, int blocks_a_multiprocessor) {
  const int64_t items = shape.tokens * CeilDiv(shape.heads, kHeadsAtATime);
  return static_cast<int>(std::min<int64_t>(int64_t{Multiprocessors()} * blocks_a_multiprocessor,
                                            CeilDiv(items, kRopeThreads / group_lanes)));
}

inline bool IsSupported(const RopeShape& shape, bool weighted) {
  return shape.width % 2 == 0 && shape.width >= 0 && shape.width <= kMaxHeadWidth &&
         (!weighted || shape.weight_element == shape.element ||
          shape.weight_element == Element::kFp32);
}

}  // namespace osler::cuda
