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

}  // namespace
}  // namespace osler::OSLER_ISA
