// What the row kernels read and write: elements in packs of 16 bytes, or one at a time, as fp32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention.h"

namespace osler::cuda {

// Element types. Words hold two 16-bit elements or one of 32 bits; sums, differences and products
// of words are of their elements, each rounded once.
struct Bf16 {
  static constexpr int kBytes = 2;
  static constexpr uint32_t kLowest = 0xff80ff80U;  // −∞, like every kLowest
  static __device__ float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
  static __device__ float High(uint32_t pair) { return __uint_as_float(pair & 0xffff0000U); }
  static __device__ uint32_t Narrow(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
  }
  static __device__ uint32_t Fma(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t pair;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
    return pair;
  }
  static __device__ uint32_t Add(uint32_t a, uint32_t b) { return Fma(b, 0x3f803f80U, a); }
  static __device__ uint32_t Subtract(uint32_t a, uint32_t b) { return Fma(b, 0xbf80bf80U, a); }
  static __device__ uint32_t Multiply(uint32_t a, uint32_t b) { return Fma(a, b, 0x80008000U); }
  static __device__ uint32_t Maximum(uint32_t a, uint32_t b) {
    uint32_t pair;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
  }
};

struct Fp16 {
  static constexpr int kBytes = 2;
  static constexpr uint32_t kLowest = 0xfc00fc00U;
  static __device__ float Low(uint32_t pair) {
    float value;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(value) : "r"(pair));
    return value;
  }
  static __device__ float High(uint32_t pair) {
    float value;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "r"(pair));
    return value;
  }
  static __device__ uint32_t Narrow(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
  }
  static __device__ uint32_t Add(uint32_t a, uint32_t b) {
    uint32_t pair;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
  }
  static __device__ uint32_t Subtract(uint32_t a, uint32_t b) {
    uint32_t pair;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
  }
  static __device__ uint32_t Multiply(uint32_t a, uint32_t b) {
    uint32_t pair;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
  }
  static __device__ uint32_t Maximum(uint32_t a, uint32_t b) {
    uint32_t pair;
    asm("max.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
  }
};

struct Fp32 {
  static constexpr int kBytes = 4;
  static constexpr uint32_t kLowest = 0xff800000U;
  static __device__ uint32_t Add(uint32_t a, uint32_t b) {
    return __float_as_uint(__fadd_rn(__uint_as_float(a), __uint_as_float(b)));
  }
  static __device__ uint32_t Subtract(uint32_t a, uint32_t b) {
    return __float_as_uint(__fsub_rn(__uint_as_float(a), __uint_as_float(b)));
  }
  static __device__ uint32_t Multiply(uint32_t a, uint32_t b) {
    return __float_as_uint(__fmul_rn(__uint_as_float(a), __uint_as_float(b)));
  }
  static __device__ uint32_t Maximum(uint32_t a, uint32_t b) {
    return __float_as_uint(fmaxf(__uint_as_float(a), __uint_as_float(b)));
  }
};

// v as an element of type T holds it.
template <typename T>
__device__ inline float Rounded(float v) {
  if constexpr (T::kBytes == 4) {
    return v;
  } else {
    return T::Low(T::Narrow(v, 0));
  }
}

template <typename T>
inline constexpr int kWideLanes = 16 / T::kBytes;

// kLanes neighbouring elements: 16 bytes or a multiple, or one element.
template <typename T, int kLanes>
struct Pack {
  static constexpr int kBytes = kLanes * T::kBytes;
  static constexpr int kWords = kBytes < 4 ? 1 : kBytes / 4;
  static_assert(kLanes == 1 || kBytes % 16 == 0);
  uint32_t words[kWords];

  // i must be known to the compiler.
  __device__ float operator[](int i) const {
    if constexpr (T::kBytes == 4) {
      return __uint_as_float(words[i]);
    } else {
      return i % 2 == 0 ? T::Low(words[i / 2]) : T::High(words[i / 2]);
    }
  }
};

#define OSLER_PACK_OPERATION(name, operation)                                                  \
  template <typename T, int kLanes>                                                            \
  __device__ inline Pack<T, kLanes> name(const Pack<T, kLanes>& a, const Pack<T, kLanes>& b) { \
    Pack<T, kLanes> result;                                                                    \
    _Pragma("unroll") for (int i = 0; i < Pack<T, kLanes>::kWords; ++i) result.words[i] =      \
        T::operation(a.words[i], b.words[i]);                                                  \
    return result;                                                                             \
  }
OSLER_PACK_OPERATION(Sum, Add)
OSLER_PACK_OPERATION(Difference, Subtract)
OSLER_PACK_OPERATION(Product, Multiply)
OSLER_PACK_OPERATION(Maximum, Maximum)
#undef OSLER_PACK_OPERATION

template <typename T, int kLanes>
__device__ inline Pack<T, kLanes> FilledPack(uint32_t word) {
  Pack<T, kLanes> pack;
#pragma unroll
  for (int i = 0; i < Pack<T, kLanes>::kWords; ++i) pack.words[i] = word;
  return pack;
}

template <typename T, int kLanes>
__device__ inline Pack<T, kLanes> LoadPack(const void* base, int64_t element) {
  using P = Pack<T, kLanes>;
  const char* at = static_cast<const char*>(base) + element * T::kBytes;
  P pack;
  if constexpr (P::kBytes >= 16) {
#pragma unroll
    for (int i = 0; i < P::kBytes / 16; ++i) {
      const uint4 v = reinterpret_cast<const uint4*>(at)[i];
      pack.words[4 * i] = v.x;
      pack.words[4 * i + 1] = v.y;
      pack.words[4 * i + 2] = v.z;
      pack.words[4 * i + 3] = v.w;
    }
  } else if constexpr (P::kBytes == 4) {
    pack.words[0] = *reinterpret_cast<const uint32_t*>(at);
  } else {
    pack.words[0] = *reinterpret_cast<const uint16_t*>(at);
  }
  return pack;
}

template <typename T, int kLanes>
__device__ inline void StorePack(void* base, int64_t element, const Pack<T, kLanes>& pack) {
  using P = Pack<T, kLanes>;
  char* at = static_cast<char*>(base) + element * T::kBytes;
  if constexpr (P::kBytes >= 16) {
#pragma unroll
    for (int i = 0; i < P::kBytes / 16; ++i) {
      const uint32_t* w = pack.words + 4 * i;
      reinterpret_cast<uint4*>(at)[i] = make_uint4(w[0], w[1], w[2], w[3]);
    }
  } else if constexpr (P::kBytes == 4) {
    *reinterpret_cast<uint32_t*>(at) = pack.words[0];
  } else {
    *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(pack.words[0]);
  }
}

template <typename T, int kLanes>
__device__ inline Pack<T, kLanes> Narrowed(const float (&v)[kLanes]) {
  Pack<T, kLanes> pack;
  if constexpr (T::kBytes == 4) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) pack.words[i] = __float_as_uint(v[i]);
  } else if constexpr (kLanes == 1) {
    pack.words[0] = T::Narrow(v[0], 0);
  } else {
#pragma unroll
    for (int i = 0; i < kLanes / 2; ++i) pack.words[i] = T::Narrow(v[2 * i], v[2 * i + 1]);
  }
  return pack;
}

// A weight is fp32, or of the values' own type.
template <typename T, int kLanes>
__device__ inline void LoadWeight(const void* weight, bool fp32, int element, float (&v)[kLanes]) {
  if (fp32) {
    const Pack<Fp32, kLanes> pack = LoadPack<Fp32, kLanes>(weight, element);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = pack[i];
  } else {
    const Pack<T, kLanes> pack = LoadPack<T, kLanes>(weight, element);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = pack[i];
  }
}

}  // namespace osler::cuda
