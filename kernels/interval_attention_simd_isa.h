// Vectors of the instruction set being compiled, and exp2 and tanh on them. For *_isa.cc only.
#pragma once

#include <cstdint>
#include <cstring>

// GCC 12 takes the don't-care operand of its own intrinsics for a use of an unset variable (bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace osler::OSLER_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::Type;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// Not the standard library's: its copies for different levels would be merged by the linker.
template <class T>
constexpr T Least(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T Most(T a, T b) {
  return a < b ? b : a;
}
constexpr int64_t RoundUp(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
constexpr int64_t RoundDown(int64_t x, int64_t to) { return x / to * to; }

template <class T>
inline Vector<T> Load(const T* from) {
  Vector<T> x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
template <class T>
inline void Store(T* to, const Vector<T>& x) {
  std::memcpy(to, &x, sizeof(x));
}
template <class T>
inline Vector<T> Splat(T x) {
  return x - Vector<T>{};
}
// The second where either is not a number.
template <class V>
inline V Larger(V a, V b) {
  return a > b ? a : b;
}

// How many correct digits exp2 gives: fp32's own, or enough for values that are rounded to bf16.
enum class Digits { kFull, kFew };

template <Digits digits>
inline Vector<float> Exp2Polynomial(Vector<float> f) {
  if constexpr (digits == Digits::kFew) {  // 2.6e-6 on [−½, ½]
    return (((9.570102540e-03f * f + 5.591786483e-02f) * f + 2.402474485e-01f) * f +
            6.931218142e-01f) *
               f +
           9.999992614e-01f;
  } else {  // 1.9e-9
    return (((((1.534581257e-04f * f + 1.339993170e-03f) * f + 9.618488959e-03f) * f +
              5.550328776e-02f) *
                 f +
             2.402264689e-01f) *
                f +
            6.931472057e-01f) *
               f +
           1.0f;
  }
}

// 2^x; 0 below the smallest normal number, not a number stays so.
template <Digits digits>
inline Vector<float> Exp2(Vector<float> x) {
#if defined(__AVX512F__)
  const __m512 f = _mm512_reduce_ps(x, 0);
  return _mm512_scalef_ps(Exp2Polynomial<digits>(f), _mm512_sub_ps(x, f));
#else
  const Vector<float> low = Splat(-127.0f), high = Splat(128.0f);
  Vector<float> y = x < low ? low : x;
  y = y > high ? high : y;
  const Vector<float> shifted = y + 12582912.0f;  // rounds to an integer in the low bits
  const Vector<float> f = y - (shifted - 12582912.0f);
  Vector<int32_t> bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits - 0x4b400000 + 127) << 23;
  Vector<float> power;
  std::memcpy(&power, &bits, sizeof(power));
  const Vector<float> result = Exp2Polynomial<digits>(f) * power;
  return x < -126.0f ? Vector<float>{} : result;
#endif
}

template <Digits digits>
inline Vector<double> Exp2(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp2(x[i]);
  return x;
}

inline Vector<float> Tanh(Vector<float> x) {
  const Vector<float> u = x * x;
  const Vector<float> small =
      x + x * u *
              ((((-5.852168942e-03f * u + 2.075363008e-02f) * u - 5.376870546e-02f) * u +
                1.333168898e-01f) *
                   u -
               3.333328326e-01f);
  const Vector<float> high = Splat(30.0f), low = Splat(-30.0f);
  Vector<float> y = x > high ? high : x;
  y = y < low ? low : y;
  const Vector<float> large = 1.0f - 2.0f / (Exp2<Digits::kFull>(y * 2.885390082f) + 1.0f);
  return u < 0.36f ? small : large;
}

inline Vector<double> Tanh(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_tanh(x[i]);
  return x;
}

#if defined(__AVX512F__)
// 16 × 16 words: row i of the result holds word i of each of the rows given.
inline void Transpose16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}
#endif

// to[c][r] = from[r][c] for rows × columns, both multiples of the vector's lanes.
template <class T>
inline void Transpose(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to,
                      int64_t to_stride) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    for (int64_t r = 0; r < rows; r += 16) {
      for (int64_t c = 0; c < columns; c += 16) {
        __m512i block[16];
        for (int i = 0; i < 16; ++i)
          block[i] = _mm512_loadu_si512(from + (r + i) * from_stride + c);
        Transpose16(block);
        for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + (c + i) * to_stride + r, block[i]);
      }
    }
    return;
  }
#endif
  constexpr int kBlock = kLanes<T>;
  for (int64_t r = 0; r < rows; r += kBlock) {
    for (int64_t c = 0; c < columns; ++c) {
      for (int i = 0; i < kBlock; ++i) to[c * to_stride + r + i] = from[(r + i) * from_stride + c];
    }
  }
}

}  // namespace
}  // namespace osler::OSLER_ISA
