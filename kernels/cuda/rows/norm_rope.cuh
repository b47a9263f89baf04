// What the forward and the backward kernel of normalisation and rotation share.
#pragma once

#include <bit>

#include "kernels/cuda/norm_rope.h"
#include "kernels/cuda/rows/launch.h"
#include "kernels/cuda/rows/reduce.cuh"

namespace osler::cuda {

inline constexpr int kRopeThreads = 256, kMaxHeadWidth = 512;
// Heads of one token that a thread has at a time: they share what is read of the tables.
template <int kLanes>
inline constexpr int kHeadsAtATime = kLanes == 1 ? 1 : 2;

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

// Where a thread works: a token's heads, a few at a time. Whole warps go round together, as
// lanes of a warp sum together: Any() is for all its lanes.
struct RopeWalk {
  int lane, group;
  int64_t token, tokens, token_step;
  int slot, slots, slot_step;  // of a token's heads

  __device__ RopeWalk(const RopeShape& shape, int group_lanes, int heads_at_a_time)
      : lane(static_cast<int>(threadIdx.x) % group_lanes),
        group(static_cast<int>(threadIdx.x) / group_lanes),
        tokens(shape.tokens),
        slots((shape.heads + heads_at_a_time - 1) / heads_at_a_time) {
    const unsigned groups = kRopeThreads / group_lanes;
    const unsigned first = blockIdx.x * groups + group, step = gridDim.x * groups;
    token = first / slots;
    slot = static_cast<int>(first % slots);
    token_step = step / slots;
    slot_step = static_cast<int>(step % slots);
  }
  __device__ bool Present() const { return token < tokens; }
  __device__ bool Any() const { return __any_sync(kWholeWarp, Present()) != 0; }
  __device__ void Next() {
    token += token_step;
    slot += slot_step;
    if (slot < slots) return;
    slot -= slots;
    ++token;
  }
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

// A lane's part of a token's tables. They are fp32; models round them to the values' type before
// they multiply.
template <typename T, int kLanes>
struct Turns {
  static constexpr int kPairs = kHeadPairs<T, kLanes>;
  Pack<T, kLanes> cosines[kPairs], sines[kPairs];

  __device__ Turns(const RopeShape& shape, const RopeWalk& walk, int group_lanes)
      : cosines{}, sines{} {
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = (walk.lane + k * group_lanes) * kLanes;
      if (!walk.Present() || i >= shape.width / 2) continue;
      const auto cos = LoadPack<Fp32, kLanes>(shape.cos, walk.token * shape.width + i);
      const auto sin = LoadPack<Fp32, kLanes>(shape.sin, walk.token * shape.width + i);
      float c[kLanes], s[kLanes];
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        c[lane] = cos[lane];
        s[lane] = sin[lane] * shape.direction;
      }
      cosines[k] = Narrowed<T, kLanes>(c);
      sines[k] = Narrowed<T, kLanes>(s);
    }
  }
};

// The weight, or 1 + the weight, as fp32.
template <typename T>
__device__ inline void LoadGain(const RopeShape& shape, const void* weight, NormStyle style,
                                float* gain) {
  const float offset = style == NormStyle::kGemma ? 1.0F : 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kRopeThreads) {
    float one[1];
    LoadWeight<T>(weight, shape.weight_element == Element::kFp32, i, one);
    gain[i] = one[0] + offset;
  }
  __syncthreads();
}

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

inline bool IsSupported(const RopeShape& shape, bool weighted) {
  return shape.width % 2 == 0 && shape.width >= 0 && shape.width <= kMaxHeadWidth &&
         (!weighted || shape.weight_element == shape.element ||
          shape.weight_element == Element::kFp32);
}

}  // namespace osler::cuda
