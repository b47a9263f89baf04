// Vectors as wide as the instruction set that the including *_isa.cc is compiled for: loads, stores
// and the functions that the row kernels need. Everything is in an unnamed namespace: see
// cpu_isa.h.
//
//   ForEach<float>(n, [&](int64_t i, auto span) { Store(y + i, Load(x + i, span) * 2, span); });
//
// walks n values; the span says whether a vector is whole or the last part of the row.
#pragma once

#include <math.h>
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

// e^v to about one unit in the last place (Cephes' reduction and polynomial); below −87 it is 0,
// above 88 it is e^88.
inline Vec<float> Exp(Vec<float> v) {
  constexpr float kShift = 12582912;  // 1.5·2²³: adding it rounds to an integer in the low bits
  const Vec<float> low = Vec<float>{} - 87, high = Vec<float>{} + 88;
  const Vec<float> x = v > high ? high : v < low ? low : v;
  const Vec<float> shifted = x * 1.44269504088896341F + kShift;
  const Vec<float> n = shifted - kShift;
  const Vec<float> r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  Vec<float> p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1;
  const Int32 power = ((Int32)shifted - (Int32)(Vec<float>{} + kShift) + 127) << 23;
  return v < low ? Vec<float>{} : p * (Vec<float>)power;
}
inline Vec<double> Exp(Vec<double> v) {
  for (int i = 0; i < kLanes<double>; ++i) v[i] = exp(v[i]);
  return v;
}

// Relative error of about 2e-7 everywhere, small arguments too (Cephes).
inline Vec<float> Tanh(Vec<float> v) {
  const Vec<float> size = v < 0 ? -v : v;
  const Vec<float> large = 1 - 2 / (Exp(size * 2) + 1);
  const Vec<float> z = v * v;
  Vec<float> p = z * -5.70498872745e-3F + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  p = p * z * v + v;
  return size < 0.625F ? p : v < 0 ? -large : large;
}
inline Vec<double> Tanh(Vec<double> v) {
  for (int i = 0; i < kLanes<double>; ++i) v[i] = tanh(v[i]);
  return v;
}

// 1 / v to about one unit in the last place, without the slow division where there is an estimate
// of 14 bits.
inline Vec<float> Reciprocal(Vec<float> v) {
#if defined(__AVX512F__)
  const Vec<float> estimate = (Vec<float>)_mm512_maskz_rcp14_ps(0xffff, (__m512)v);
  return estimate * (2 - v * estimate);
#else
  return 1 / v;
#endif
}

// 1 / (1 + e^−v), with a small relative error for very negative v too.
inline Vec<float> Sigmoid(Vec<float> v) { return Reciprocal(Exp(-v) + 1); }
inline Vec<double> Sigmoid(Vec<double> v) { return 1 / (Exp(-v) + 1); }

}  // namespace
}  // namespace osler
