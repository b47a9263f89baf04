// How each number type lies in the operands of the tile products: "kinds". For *_isa.cc only.
//
// A panel holds the rows (keys, or query columns) of a tile in words. Four forms are needed:
//   rows            [row][width]   left operand, width summed over
//   transposed      [width][row]   right operand, width summed over
//   paired          [row][width]   right operand, rows summed over
//   pairs of rows   [width][row]   left operand, rows summed over
// With one number a word the first and the last are one panel read with swapped strides, and so is
// the third.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/interval_attention_gemm_isa.h"
#include "kernels/interval_attention_tiles.h"

namespace osler::OSLER_ISA {
namespace {

using BFloat16 = uint16_t;

inline void Widen(const float* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}
inline void Widen(const double* from, int64_t n, double* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}
inline void Widen(const BFloat16* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    std::memcpy(to + i, &bits, sizeof(bits));
  }
}
inline void Narrow(const float* from, int64_t n, float* to) { Widen(from, n, to); }
inline void Narrow(const double* from, int64_t n, double* to) { Widen(from, n, to); }
inline void Narrow(const float* from, int64_t n, BFloat16* to) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof(bits));
    const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
    const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    to[i] = static_cast<BFloat16>(number ? nearest : bits >> 16 | 0x40u);
  }
}

#if defined(__AVX512F__)
inline __mmask16 LeadingWords(int64_t left) {
  return left >= 16 ? 0xffff : static_cast<__mmask16>((1u << Most<int64_t>(left, 0)) - 1);
}

// to[w][i] = word w of row i of n; rows up to `padded` and words from `words` to `padded_words` are
// zero. Both paddings are multiples of 16.
template <class Row>
inline void TransposeWords(Row row, int64_t n, int64_t padded, int64_t words, int64_t padded_words,
                           void* to, int64_t stride) {
  auto* const out = static_cast<uint32_t*>(to);
  for (int64_t i = 0; i < padded; i += 16) {
    for (int64_t w = 0; w < padded_words; w += 16) {
      const __mmask16 mask = LeadingWords(words - w);
      __m512i block[16];
      for (int64_t j = 0; j < 16; ++j) {
        block[j] = _mm512_setzero_si512();
        if (i + j >= n) continue;
        const auto* from = reinterpret_cast<const std::byte*>(row(i + j)) + 4 * w;
        block[j] = _mm512_maskz_loadu_epi32(mask, from);
      }
      Transpose16(block);
      for (int64_t j = 0; j < 16; ++j) _mm512_storeu_si512(out + (w + j) * stride + i, block[j]);
    }
  }
}
#endif

// Words are numbers in the type of the sums.
template <class In, class S, Digits digits>
struct PlainKind {
  using Input = In;
  using Sum = S;
  using Word = S;
  struct Registers {};
  static constexpr Digits kDigits = digits;
  static constexpr int kPair = 1;  // numbers a word
  // Products read the caller's keys where they lie.
  static constexpr bool kInPlace = sizeof(In) == sizeof(S);
  static constexpr int64_t kColumns = 64;      // of a tile
  static constexpr int64_t kPartColumns = 64;  // columns whose range of keys is cut together
  static constexpr int64_t kPartKeys = 48;     // keys whose range of columns is cut together
  static constexpr int64_t kKeyStep = 1;       // key ranges are multiples of it
  static constexpr int64_t kColumnStep = kLanes<S>;
  static constexpr int64_t kRangeStep = 1;  // of columns summed over

  static int64_t WidthStride(int64_t width) { return RoundUp(width, kLanes<S>); }
  static int64_t WidthWords(int64_t width) { return width; }  // summed over
  static int64_t WidthRows(int64_t width) { return width; }   // of the product
  static int64_t WidthColumns(int64_t width) { return RoundUp(width, kLanes<S>); }

  static void Multiply(Into into, GemmShape shape, LeftMatrix<Word> a, RightMatrix<const Word> b,
                       RightMatrix<Sum> c) {
    MultiplyVectors(into, shape, a, b, c);
  }

  // row(i) points to row i of n; rows up to `padded` are zero.
  template <class Row>
  static void PackRows(Row row, int64_t n, int64_t padded, int64_t width, Word* to) {
    const int64_t stride = WidthStride(width);
    for (int64_t i = 0; i < n; ++i, to += stride) {
      Widen(row(i), width, to);
      for (int64_t d = width; d < stride; ++d) to[d] = 0;
    }
    std::memset(to, 0, static_cast<size_t>((padded - n) * stride) * sizeof(Word));
  }
  // In strips of the width that lie one after the other, kColumns rows each: what a product reads
  // again and again is dense, so that it stays in the first cache.
  static int64_t PairedStrip(int64_t) { return kVectorsAtOnce * kLanes<S>; }
  template <class Row>
  static void PackPaired(Row row, int64_t n, int64_t, int64_t width, Word* to) {
    const int64_t strip = PairedStrip(width);
    for (int64_t w = 0; w < width; w += strip, to += kColumns * strip) {
      const int64_t words = Least(strip, width - w), padded_words = WidthStride(words);
      for (int64_t i = 0; i < n; ++i) {
        Widen(row(i) + w, words, to + i * strip);
        for (int64_t d = words; d < padded_words; ++d) to[i * strip + d] = 0;
      }
    }
  }
  // [width][stride]
  template <class Row>
  static void PackTransposed(Row row, int64_t n, int64_t padded, int64_t width, Word* to,
                             int64_t stride) {
#if defined(__AVX512F__)
    if constexpr (sizeof(In) == 4) {
      TransposeWords(row, n, padded, width, WidthStride(width), to, stride);
      return;
    }
#endif
    constexpr int64_t kLane = kLanes<S>;
    for (int64_t i = 0; i < padded; i += kLane) {
      alignas(kVectorBytes) Word block[kLane * kMaxAttentionWidth];
      PackRows([&](int64_t j) { return row(i + j); }, Least(kLane, Most<int64_t>(n - i, 0)), kLane,
               width, block);
      Transpose(block, WidthStride(width), kLane, WidthStride(width), to + i, stride);
    }
  }
  // Nothing: ByWidth reads the rows.
  template <class Row>
  static void PackRowPairs(Row, int64_t, int64_t, int64_t, Word*, int64_t) {}
  static LeftMatrix<Word> ByWidth(const Word* rows, const Word*, int64_t, int64_t key,
                                  int64_t width) {
    return {rows + key * WidthStride(width), 1, WidthStride(width)};
  }
  static int64_t RowPairWords(int64_t, int64_t) { return 0; }

  using Block = Vector<S>[1][1];  // of a row and a vector of columns
  static void EmitLeft(const Block& p, Word* to, int64_t) { Store(to, p[0][0]); }
  static void EmitRight(const Block&, Word*, int64_t) {}
};

#if defined(__AVX512BF16__)
// Words are pairs of bf16.
struct PairKind {
  using Input = BFloat16;
  using Sum = float;
  using Word = uint32_t;
  static constexpr Digits kDigits = Digits::kFew;
  static constexpr int kPair = 2;
  static constexpr bool kInPlace = false;
#if defined(__AMX_BF16__)
  using Registers = TileRegisters;
  static constexpr int64_t kColumns = 128, kPartColumns = 32, kPartKeys = 32, kKeyStep = 32;
  static constexpr int64_t kRangeStep = 32;
  static int64_t WidthWords(int64_t width) { return RoundUp(width, 32) / 2; }
  static int64_t WidthRows(int64_t width) { return RoundUp(width, 16); }
#else
  struct Registers {};
  static constexpr int64_t kColumns = 64, kPartColumns = 64, kPartKeys = 48, kKeyStep = 2;
  static constexpr int64_t kRangeStep = 2;
  static int64_t WidthWords(int64_t width) { return width / 2; }
  static int64_t WidthRows(int64_t width) { return width; }
#endif
  static constexpr int64_t kColumnStep = 32;
  static int64_t WidthStride(int64_t width) { return RoundUp(width, 32); }
  static int64_t WidthColumns(int64_t width) { return RoundUp(width, 16); }

  static void Multiply(Into into, GemmShape shape, LeftMatrix<Word> a, RightMatrix<const Word> b,
                       RightMatrix<Sum> c) {
#if defined(__AMX_BF16__)
    MultiplyAmx(into, shape, a, b, c);
#else
    MultiplyVectors(into, shape, a, b, c);
#endif
  }

  template <class Row>
  static void PackRows(Row row, int64_t n, int64_t padded, int64_t width, Word* to) {
    const int64_t stride = WidthStride(width);
    auto* out = reinterpret_cast<std::byte*>(to);
    for (int64_t i = 0; i < n; ++i, out += 2 * stride) {
      std::memcpy(out, row(i), static_cast<size_t>(2 * width));
      std::memset(out + 2 * width, 0, static_cast<size_t>(2 * (stride - width)));
    }
    std::memset(out, 0, static_cast<size_t>(2 * stride * (padded - n)));
  }

  template <class Row>
  static void PackTransposed(Row row, int64_t n, int64_t padded, int64_t width, Word* to,
                             int64_t stride) {
    TransposeWords(row, n, padded, width / 2, WidthStride(width) / 2, to, stride);
  }

  static int64_t PairedStrip(int64_t width) { return WidthStride(width); }
  template <class Row>
  static void PackPaired(Row row, int64_t n, int64_t padded, int64_t width, Word* to) {
    const int64_t stride = WidthStride(width);
    for (int64_t i = 0; i < padded; i += 2, to += stride) {
      for (int64_t d = 0; d < stride; d += 16) {
        _mm512_storeu_si512(to + d, PairWords(row, n, i, d, width));
      }
    }
  }

  // [width][row pairs]
  template <class Row>
  static void PackRowPairs(Row row, int64_t n, int64_t padded, int64_t width, Word* to,
                           int64_t stride) {
    for (int64_t i = 0; i < padded; i += 32) {
      for (int64_t d = 0; d < WidthStride(width); d += 16) {
        __m512i block[16];
        for (int64_t j = 0; j < 16; ++j) block[j] = PairWords(row, n, i + 2 * j, d, width);
        Transpose16(block);
        for (int64_t j = 0; j < 16; ++j) {
          _mm512_storeu_si512(to + (d + j) * stride + i / 2, block[j]);
        }
      }
    }
  }
  static LeftMatrix<Word> ByWidth(const Word*, const Word* row_pairs, int64_t stride, int64_t key,
                                  int64_t) {
    return {row_pairs + key / 2, stride, 1};
  }
  static int64_t RowPairWords(int64_t keys, int64_t width) {
    return WidthStride(width) * RoundUp(keys, 32) / 2;
  }

  using Block = Vector<float>[2][2];  // of two rows and two vectors of columns
  static void EmitLeft(const Block& p, Word* to, int64_t stride) {
    for (int r = 0; r < 2; ++r) {
      _mm512_storeu_si512(to + r * stride,
                          reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p[r][1], p[r][0])));
    }
  }
  static void EmitRight(const Block& p, Word* to, int64_t) {
    const __m512i interleave =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int v = 0; v < 2; ++v) {
      const auto halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p[1][v], p[0][v]));
      _mm512_storeu_si512(to + 16 * v, _mm512_permutexvar_epi16(interleave, halves));
    }
  }

 private:
  template <class Row>
  static __m512i Wide(Row row, int64_t n, int64_t i, int64_t d, __mmask16 words) {
    if (i >= n) return _mm512_setzero_si512();
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(words, row(i) + d));
  }
  // The pairs (row i, row i + 1) at width d and the 15 after.
  template <class Row>
  static __m512i PairWords(Row row, int64_t n, int64_t i, int64_t d, int64_t width) {
    const __mmask16 words = LeadingWords(width - d);
    return _mm512_or_si512(Wide(row, n, i, d, words),
                           _mm512_slli_epi32(Wide(row, n, i + 1, d, words), 16));
  }
};
#endif

}  // namespace
}  // namespace osler::OSLER_ISA
