// Lists of tensors as one grid: each block takes a chunk of one tensor. A list is a kernel
// argument, so it is copied with the launch and needs no memory of the device.
#pragma once

#include "kernels/cuda/rows/launch.h"

namespace osler::cuda {

inline constexpr int kChunk = 16384;  // elements

inline unsigned Chunks(int64_t count) { return static_cast<unsigned>(CeilDiv(count, kChunk)); }

// The last entry whose first_chunk is at most `chunk`.
template <typename List>
__device__ inline int EntryOfChunk(const List& list, unsigned chunk) {
  int low = 0;
  int high = list.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (list.entries[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Eight elements of a type known at run time: 16 bytes, or 32 of fp32. Loads of several such come
// before the first of them is widened.
struct Eight {
  uint4 low, high;

  __device__ static Eight Load(const void* base, int64_t element, Element type) {
    const int bytes = type == Element::kFp32 ? 4 : 2;
    const auto* at =
        reinterpret_cast<const uint4*>(static_cast<const char*>(base) + element * bytes);
    Eight eight;
    eight.low = at[0];
    if (type == Element::kFp32) eight.high = at[1];
    return eight;
  }
  __device__ void Widen(Element type, float (&v)[8]) const {
    const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t pair = words[i / 2];
      if (type == Element::kFp32) {
        v[i] = __uint_as_float(words[i]);
      } else if (type == Element::kBf16) {
        v[i] = i % 2 == 0 ? Bf16::Low(pair) : Bf16::High(pair);
      } else {
        v[i] = i % 2 == 0 ? Fp16::Low(pair) : Fp16::High(pair);
      }
    }
  }
};

template <typename T>
__device__ inline void StoreEightAs(void* base, int64_t element, const float (&v)[8]) {
  StorePack(base, element, Narrowed<T, 8>(v));
}
__device__ inline void StoreEight(void* base, int64_t element, Element type, const float (&v)[8]) {
  switch (type) {
    case Element::kBf16: return StoreEightAs<Bf16>(base, element, v);
    case Element::kFp16: return StoreEightAs<Fp16>(base, element, v);
    case Element::kFp32: return StoreEightAs<Fp32>(base, element, v);
  }
}

__device__ inline float LoadOne(const void* base, int64_t element, Element type) {
  switch (type) {
    case Element::kBf16: return LoadPack<Bf16, 1>(base, element)[0];
    case Element::kFp16: return LoadPack<Fp16, 1>(base, element)[0];
    default: return LoadPack<Fp32, 1>(base, element)[0];
  }
}
__device__ inline void StoreOne(void* base, int64_t element, Element type, float v) {
  const float one[1] = {v};
  switch (type) {
    case Element::kBf16: return StorePack(base, element, Narrowed<Bf16, 1>(one));
    case Element::kFp16: return StorePack(base, element, Narrowed<Fp16, 1>(one));
    case Element::kFp32: return StorePack(base, element, Narrowed<Fp32, 1>(one));
  }
}

}  // namespace osler::cuda
