// Products of small matrices in cache, C[M×N] = or += A[M×K] · B[K×N]. For *_isa.cc only.
//
// A word is one number, or a pair of bf16 that are neighbours along K. A is read word by word with
// any strides, B and C in vectors along N.
#pragma once

#include <cstdint>

#include "kernels/interval_attention_simd_isa.h"

namespace osler::OSLER_ISA {
namespace {

enum class Into { kStore, kAdd };

template <class Word>
struct LeftMatrix {
  const Word* data;
  int64_t row_stride, k_stride;

  LeftMatrix At(int64_t row, int64_t k) const {
    return {data + row * row_stride + k * k_stride, row_stride, k_stride};
  }
};

template <class T>
struct RightMatrix {
  T* data;
  int64_t stride;

  RightMatrix At(int64_t row, int64_t column) const {
    return {data + row * stride + column, stride};
  }
};

struct GemmShape {
  int64_t m, n, k;  // k in words
};

template <class T>
inline Vector<T> MultiplyAdd(T a, Vector<T> b, Vector<T> c) {
  return a * b + c;
}
#if defined(__AVX512BF16__)
inline Vector<float> MultiplyAdd(uint32_t a, Vector<uint32_t> b, Vector<float> c) {
  const auto pair = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a)));
  return _mm512_dpbf16_ps(c, pair, reinterpret_cast<__m512bh>(b));
}
#endif

constexpr int kRowsAtOnce = 6;
constexpr int kVectorsAtOnce = kVectorBytes == 64 ? 4 : 2;

// kRows × kVectors vectors of C stay in registers.
template <int kRows, int kVectors, class Word, class Sum>
inline void MultiplyBlock(Into into, int64_t k, LeftMatrix<Word> a, RightMatrix<const Word> b,
                          RightMatrix<Sum> c) {
  Vector<Sum> sum[kRows][kVectors] = {};
  for (int64_t i = 0; i < k; ++i) {
    Vector<Word> right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = Load(b.data + i * b.stride + v * kLanes<Word>);
    for (int r = 0; r < kRows; ++r) {
      const Word left = a.data[r * a.row_stride + i * a.k_stride];
      for (int v = 0; v < kVectors; ++v) sum[r][v] = MultiplyAdd(left, right[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Sum* to = c.data + r * c.stride + v * kLanes<Sum>;
      Store(to, into == Into::kAdd ? Load(to) + sum[r][v] : sum[r][v]);
    }
  }
}

template <int kVectors, int kRows = kRowsAtOnce, class Word, class Sum>
inline void MultiplyStrip(Into into, int64_t m, int64_t k, LeftMatrix<Word> a,
                          RightMatrix<const Word> b, RightMatrix<Sum> c) {
  int64_t row = 0;
  for (; row + kRows <= m; row += kRows) {
    MultiplyBlock<kRows, kVectors>(into, k, a.At(row, 0), b, c.At(row, 0));
  }
  if constexpr (kRows > 1) {
    if (row < m) {
      MultiplyStrip<kVectors, kRows - 1>(into, m - row, k, a.At(row, 0), b, c.At(row, 0));
    }
  }
}

// n is a multiple of the vector's lanes. A strip of B that fits the first cache is used for all
// rows.
template <class Word, class Sum>
inline void MultiplyVectors(Into into, GemmShape shape, LeftMatrix<Word> a,
                            RightMatrix<const Word> b, RightMatrix<Sum> c) {
  constexpr int64_t kDepth = 128;
  constexpr int64_t kLane = kLanes<Sum>;
  for (int64_t k = 0; k < shape.k; k += kDepth, into = Into::kAdd) {
    const int64_t depth = Least(kDepth, shape.k - k);
    int64_t n = 0;
    const auto strips = [&]<int kVectors>() {
      for (; n + kVectors * kLane <= shape.n; n += kVectors * kLane) {
        MultiplyStrip<kVectors>(into, shape.m, depth, a.At(0, k), b.At(k, n), c.At(0, n));
      }
    };
    if constexpr (kVectorsAtOnce == 4) strips.template operator()<4>();
    strips.template operator()<2>();
    strips.template operator()<1>();
  }
}

#if defined(__AMX_BF16__)
// Tile registers: 0–3 hold C, 4–5 two tiles of A, 6–7 two of B; 16 rows of 64 bytes each.
class TileRegisters {
 public:
  TileRegisters() {
    alignas(64) uint8_t config[64] = {};
    config[0] = 1;
    for (int tile = 0; tile < 8; ++tile) {
      config[16 + 2 * tile] = 64;
      config[48 + tile] = 16;
    }
    _tile_loadconfig(config);
  }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// 16·kM × 16·kN of C.
template <int kM, int kN>
inline void MultiplyTiles(Into into, int64_t k, LeftMatrix<uint32_t> a,
                          RightMatrix<const uint32_t> b, RightMatrix<float> c) {
  const int64_t c_bytes = 4 * c.stride, a_bytes = 4 * a.row_stride, b_bytes = 4 * b.stride;
  float* lower = c.data + 16 * c.stride;
  if (into == Into::kAdd) {
    _tile_loadd(0, c.data, c_bytes);
    if constexpr (kN > 1) _tile_loadd(1, c.data + 16, c_bytes);
    if constexpr (kM > 1) _tile_loadd(2, lower, c_bytes);
    if constexpr (kM > 1 && kN > 1) _tile_loadd(3, lower + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t i = 0; i < k; i += 16) {
    const uint32_t* right = b.data + i * b.stride;
    _tile_loadd(4, a.data + i, a_bytes);
    _tile_loadd(6, right, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kN > 1) {
      _tile_loadd(7, right + 16, b_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kM > 1) {
      _tile_loadd(5, a.data + 16 * a.row_stride + i, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kM > 1 && kN > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c.data, c_bytes);
  if constexpr (kN > 1) _tile_stored(1, c.data + 16, c_bytes);
  if constexpr (kM > 1) _tile_stored(2, lower, c_bytes);
  if constexpr (kM > 1 && kN > 1) _tile_stored(3, lower + 16, c_bytes);
}

// m, n and k are multiples of 16 words; a.k_stride is 1.
inline void MultiplyAmx(Into into, GemmShape shape, LeftMatrix<uint32_t> a,
                        RightMatrix<const uint32_t> b, RightMatrix<float> c) {
  for (int64_t n = 0; n < shape.n; n += 32) {
    const bool wide = n + 32 <= shape.n;
    for (int64_t m = 0; m < shape.m; m += 32) {
      const bool high = m + 32 <= shape.m;
      const auto left = a.At(m, 0);
      const auto right = b.At(0, n);
      const auto sums = c.At(m, n);
      if (high && wide) {
        MultiplyTiles<2, 2>(into, shape.k, left, right, sums);
      } else if (high) {
        MultiplyTiles<2, 1>(into, shape.k, left, right, sums);
      } else if (wide) {
        MultiplyTiles<1, 2>(into, shape.k, left, right, sums);
      } else {
        MultiplyTiles<1, 1>(into, shape.k, left, right, sums);
      }
    }
  }
}
#endif

}  // namespace
}  // namespace osler::OSLER_ISA
