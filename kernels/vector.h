// Vectors as wide as the instruction set that the including *_isa.cc is compiled for: loads,
// stores, rounding and sums. Everything is in an unnamed namespace: see cpu_isa.h.
//
//   ForEach<float>(n, [&](int64_t i, auto span) { Store(y + i, Load(x + i, span) * 2, span); });
//
// walks n values; the span says whether a vector is whole or the last part of the row.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace osler {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct BFloat16 {
  uint16_t bits;
};

// What values of a stored type are computed in.
template <typename T>
struct SumTypeOf {
  using type = T;
};
template <>
struct SumTypeOf<BFloat16> {
  using type = float;
};
template <typename T>
using Sum = typename SumTypeOf<T>::type;

template <typename A>
struct VectorOf {
  typedef A type __attribute__((vector_size(kVectorBytes)));
};
template <typename A>
using Vec = typename VectorOf<A>::type;
typedef uint32_t Bits32 __attribute__((vector_size(kVectorBytes)));
typedef int32_t Int32 __attribute__((vector_size(kVectorBytes)));
typedef uint16_t Bits16 __attribute__((vector_size(kVectorBytes / 2)));

template <typename T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Sum<T>));

struct Whole {};
struct Part {
  int count;
};

template <typename T, typename F>
inline __attribute__((always_inline)) void ForEach(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) f(i, Whole{});
  if (i < n) f(i, Part{static_cast<int>(n - i)});
}

// The third argument of f counts 0 … 3: sums kept by it do not wait for each other.
template <typename T, typename F>
inline __attribute__((always_inline)) void ForEachOf4(int64_t n, F f) {
  int64_t i = 0;
  for (; i + 4 * kLanes<T> <= n; i += 4 * kLanes<T>) {
    for (int k = 0; k < 4; ++k) f(i + k * kLanes<T>, Whole{}, k);
  }
  for (; i + kLanes<T> <= n; i += kLanes<T>) f(i, Whole{}, 0);
  if (i < n) f(i, Part{static_cast<int>(n - i)}, 0);
}

// Asks for what a walk over p will read or write some lines later. The processor fetches ahead
// within a page of 4 KiB only, and a kernel of many instructions a value reaches the next page too
// late by itself.
constexpr int kAheadBytes = 1024;
inline void FetchAhead(const void* p) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + kAheadBytes));
}

// Loads of a part are zero beyond it; stores of a part touch nothing beyond it.
inline Vec<float> Load(const float* p, Whole) {
  Vec<float> v;
  memcpy(&v, p, sizeof v);
  FetchAhead(p);
  return v;
}
inline Vec<double> Load(const double* p, Whole) {
  Vec<double> v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline Vec<float> Widened(Bits16 h) {
  return (Vec<float>)(__builtin_convertvector(h, Bits32) << 16);
}
inline Vec<float> Load(const BFloat16* p, Whole) {
  Bits16 v;
  memcpy(&v, p, sizeof v);
  FetchAhead(p);
  return Widened(v);
}
template <typename T>
inline Vec<Sum<T>> Load(const T* p, Part part) {
  T row[kLanes<T>] = {};
  memcpy(row, p, static_cast<size_t>(part.count) * sizeof(T));
  return Load(row, Whole{});
}

// To the nearest bf16, ties to even; a NaN stays one. (The instruction takes fp32 numbers below
// 2⁻¹²⁶ for 0.)
#if defined(__AVX512BF16__)
inline Bits16 Narrowed(Vec<float> v) { return (Bits16)_mm512_cvtneps_pbh((__m512)v); }
#else
inline Bits16 Narrowed(Vec<float> v) {
  const Bits32 bits = (Bits32)v;
  const Bits32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return __builtin_convertvector(v == v ? rounded : (Bits32{} + 0x7fc0), Bits16);
}
#endif
inline void Store(float* p, Vec<float> v, Whole) {
  memcpy(p, &v, sizeof v);
  FetchAhead(p);
}
inline void Store(double* p, Vec<double> v, Whole) { memcpy(p, &v, sizeof v); }
inline void Store(BFloat16* p, Vec<float> v, Whole) {
  const Bits16 h = Narrowed(v);
  FetchAhead(p);
  memcpy(p, &h, sizeof h);
}
template <typename T>
inline void Store(T* p, Vec<Sum<T>> v, Part part) {
  T row[kLanes<T>];
  Store(row, v, Whole{});
  memcpy(p, row, static_cast<size_t>(part.count) * sizeof(T));
}

// The lanes beyond a part hold `fill`.
template <typename A>
inline Vec<A> Filled(Vec<A> v, A, Whole) {
  return v;
}
template <typename A>
inline Vec<A> Filled(Vec<A> v, A fill, Part part) {
  for (int i = part.count; i < kLanes<A>; ++i) v[i] = fill;
  return v;
}

// v as it would be read back after a store as T.
template <typename T>
inline Vec<Sum<T>> Rounded(Vec<Sum<T>> v) {
  if constexpr (sizeof(T) == sizeof(BFloat16)) {
    return Widened(Narrowed(v));
  } else {
    return v;
  }
}

// Over the lanes, in a fixed order.
template <typename A>
inline A SumOf(Vec<A> v) {
  for (int half = kLanes<A> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
}
template <typename A>
inline A SumOf4(const Vec<A> (&v)[4]) {
  return SumOf<A>((v[0] + v[1]) + (v[2] + v[3]));
}
template <typename A>
inline A LargestOf(Vec<A> v) {
  A largest = v[0];
  for (int i = 1; i < kLanes<A>; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

}  // namespace
}  // namespace osler
