// The kind of machines that multiply pairs of bf16: how such pairs lie in the operands of the tile
// products (interval_attention_panels_isa.h has the forms). For *_isa.cc only.
#pragma once

#include <cstdint>

#include "kernels/interval_attention_panels_isa.h"

namespace osler::OSLER_ISA {
namespace {

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
