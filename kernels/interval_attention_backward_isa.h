// The backward pass of one block of columns × keys: five products a score tile, everything
// transposed as in the forward pass. Gradients of a block are summed in scratch and then added to
// the arguments' sums. For *_isa.cc only. Dao, FlashAttention-2 (arXiv 2307.08691), algorithm 2.
#pragma once

#include "kernels/interval_attention_columns_isa.h"

namespace osler::OSLER_ISA {
namespace {

template <class Kind>
class BackwardPass {
 public:
  using Word = typename Kind::Word;
  using Sum = typename Kind::Sum;
  using Input = typename Kind::Input;
  static constexpr int kPair = Kind::kPair;
  static constexpr int64_t kKeys = 128;  // of a score tile
  static constexpr int64_t kColumns = Kind::kColumns;
  static constexpr int64_t kStrip = kPair * kLanes<Sum>;
  static constexpr bool kPlain = kPair == 1;

  struct Scratch {
    Scratch(int64_t width, std::byte* base) {
      const int64_t stride = Kind::WidthStride(width);
      Carver carver(base);
      block_keys = RoundUp(kBackwardKeyValues / width, 32);
      key_rows = carver.Take<Word>(block_keys * stride / kPair);
      value_rows = carver.Take<Word>(block_keys * stride / kPair);
      key_pairs = carver.Take<Word>(Kind::RowPairWords(block_keys, width));
      grad_key = carver.Take<Sum>(block_keys * stride);
      grad_value = carver.Take<Sum>(block_keys * stride);
      query = carver.Take<Word>(kColumns * stride / kPair);
      const int64_t paired = kColumns * RoundUp(stride, Kind::PairedStrip(width)) / kPair;
      query_paired = carver.Take<Word>(paired);
      grad_out = carver.Take<Word>(kColumns * stride / kPair);
      grad_out_paired = carver.Take<Word>(paired);
      grad_query = carver.Take<Sum>(kColumns * stride);
      row = carver.Take<Sum>(kColumns * stride);
      scores = carver.Take<Sum>(kKeys * kColumns);
      grad_weights = carver.Take<Sum>(kKeys * kColumns);
      const int64_t words = kPlain ? 0 : kKeys * kColumns / kPair;
      Word* const own[3] = {carver.Take<Word>(words), carver.Take<Word>(words),
                            carver.Take<Word>(words)};
      weights = kPlain ? reinterpret_cast<Word*>(scores) : own[0];
      grad_scores = kPlain ? reinterpret_cast<Word*>(grad_weights) : own[1];
      grad_scores_paired = kPlain ? grad_scores : own[2];
      lo = carver.Take<Sum>(kColumns);
      hi = carver.Take<Sum>(kColumns);
      lse = carver.Take<Sum>(kColumns);
      delta = carver.Take<Sum>(kColumns);
      bytes = carver.used();
    }
    Word *key_rows, *value_rows, *key_pairs, *query, *query_paired, *grad_out, *grad_out_paired;
    Word *weights, *grad_scores, *grad_scores_paired;
    Sum *grad_key, *grad_value, *grad_query, *row, *scores, *grad_weights, *lo, *hi, *lse, *delta;
    int64_t block_keys, bytes;
  };

  BackwardPass(const AttentionArguments& args, const AttentionBlock& block, std::byte* scratch)
      : args_(args),
        block_(block),
        keys_{block.key, block.key + block.keys},
        s_(args.width, scratch),
        scale_(args) {}

  void Run() {
    const typename Kind::Registers registers;
    (void)registers;
    PackKeys();
    for (int64_t begin = 0; begin < block_.columns; begin += kColumns) {
      const Columns<Kind> columns(args_, block_.key_head, block_.column + begin,
                                  Least(kColumns, block_.columns - begin));
      const Span seen = Common(columns.Keys({0, columns.count()}), keys_);
      if (seen.empty()) continue;
      PackColumns(columns);
      for (int64_t key = seen.begin; key < seen.end;) {
        // Tiles start at multiples of the step inside the block's panels.
        const int64_t base = keys_.begin + RoundDown(key - keys_.begin, Kind::kKeyStep);
        const Span tile = {base, Least(base + kKeys, seen.end)};
        AddTile(columns, tile);
        key = tile.end;
      }
      AddQueryGradients(columns);
    }
    AddKeyGradients();
  }

 private:
  int64_t stride() const { return Kind::WidthStride(args_.width); }

  void PackKeys() {
    const int64_t head = block_.key_head, width = args_.width, n = keys_.size();
    const int64_t padded = RoundUp(n, Kind::kKeyStep);
    const auto k = [&](int64_t i) { return RowOf<Input>(args_.k, keys_.begin + i, head); };
    const auto v = [&](int64_t i) { return RowOf<Input>(args_.v, keys_.begin + i, head); };
    if constexpr (Kind::kInPlace) {
      key_rows_ = {RowOf<Word>(args_.k, keys_.begin, head), args_.k.row_stride, 1};
      value_rows_ = {RowOf<Word>(args_.v, keys_.begin, head), args_.v.row_stride, 1};
      key_turned_ = {key_rows_.data, 1, key_rows_.row_stride};
    } else {
      key_rows_ = {s_.key_rows, stride() / kPair, 1};
      value_rows_ = {s_.value_rows, stride() / kPair, 1};
      key_turned_ = Kind::ByWidth(s_.key_rows, s_.key_pairs, s_.block_keys / kPair, 0, width);
      Kind::PackRows(k, n, padded, width, s_.key_rows);
      Kind::PackRows(v, n, padded, width, s_.value_rows);
      Kind::PackRowPairs(k, n, RoundUp(n, 32), width, s_.key_pairs, s_.block_keys / kPair);
    }
    const auto bytes = static_cast<size_t>(padded * stride()) * sizeof(Sum);
    std::memset(s_.grad_key, 0, bytes);
    std::memset(s_.grad_value, 0, bytes);
  }

  void PackColumns(const Columns<Kind>& columns) {
    const int64_t width = args_.width, n = columns.count(), padded = columns.padded();
    const auto q = [&](int64_t c) {
      return RowOf<Input>(args_.q, columns.Row(c), columns.Head(c));
    };
    const auto g = [&](int64_t c) {
      return RowOf<Input>(args_.grad_out, columns.Row(c), columns.Head(c));
    };
    Kind::PackTransposed(q, n, padded, width, s_.query, kColumns);
    Kind::PackTransposed(g, n, padded, width, s_.grad_out, kColumns);
    Kind::PackPaired(q, n, padded, width, s_.query_paired);
    Kind::PackPaired(g, n, padded, width, s_.grad_out_paired);
    std::memset(s_.grad_query, 0, static_cast<size_t>(kColumns * stride()) * sizeof(Sum));
    for (int64_t c = 0; c < padded; ++c) s_.lse[c] = s_.delta[c] = 0;
    for (int64_t c = 0; c < n; ++c) {
      const int64_t at = columns.Index(c);
      s_.lse[c] = static_cast<const Sum*>(args_.lse)[at] * static_cast<Sum>(kLog2E);
      s_.delta[c] = Dot(RowOf<Input>(args_.out, columns.Row(c), columns.Head(c)), g(c));
      if (args_.grad_lse != nullptr) s_.delta[c] -= static_cast<const Sum*>(args_.grad_lse)[at];
    }
  }

  Sum Dot(const Input* a, const Input* b) const {
    alignas(kVectorBytes) Sum left[kMaxAttentionWidth], right[kMaxAttentionWidth];
    Widen(a, args_.width, left);
    Widen(b, args_.width, right);
    Vector<Sum> sum = {};
    int64_t d = 0;
    for (; d + kLanes<Sum> <= args_.width; d += kLanes<Sum>)
      sum += Load(left + d) * Load(right + d);
    Sum total = 0;
    for (; d < args_.width; ++d) total += left[d] * right[d];
    for (int i = 0; i < kLanes<Sum>; ++i) total += sum[i];
    return total;
  }

  // keys: a score tile, its begin a multiple of the step from the block's first key.
  void AddTile(const Columns<Kind>& columns, Span keys) {
    columns.Relative(keys.begin, s_.lo, s_.hi);
    const Span rows = KeySteps<Kind>(keys, keys.begin);
    const int64_t at = keys.begin - keys_.begin;  // in the block's panels
    for (int64_t c = 0; c < columns.padded(); c += Kind::kPartColumns) {
      const Span part = {c, Least(c + Kind::kPartColumns, columns.padded())};
      const Span seen = Common(columns.Keys(columns.Real(part)), keys);
      const Span computed =
          seen.empty() ? Span{rows.end, rows.end} : KeySteps<Kind>(seen, keys.begin);
      AddPart(part, rows, computed, at);
    }
    Span range = {0, 0};  // of the columns that see some of the keys of a part
    for (int64_t r = rows.begin; r < rows.end; r += Kind::kPartKeys) {
      const Span part = {r, Least(r + Kind::kPartKeys, rows.end)};
      const auto first = static_cast<Sum>(part.begin), last = static_cast<Sum>(part.end);
      while (range.begin < columns.count() && s_.hi[range.begin] <= first) ++range.begin;
      range.end = Most(range.begin, range.end);
      while (range.end < columns.count() && s_.lo[range.end] < last) ++range.end;
      if (!range.empty()) AddToKeys(part, range, at);
    }
  }

  // Weights, score gradients and query gradients of some columns. Score rows are zero outside
  // `computed`.
  void AddPart(Span part, Span rows, Span computed, int64_t at) {
    const int64_t width = args_.width, columns = part.size(), n = computed.size();
    const RightMatrix<Sum> scores = {s_.scores + part.begin, kColumns};
    const RightMatrix<Sum> grad_weights = {s_.grad_weights + part.begin, kColumns};
    const GemmShape shape = {n, columns, Kind::WidthWords(width)};
    if (n > 0) {
      const int64_t from = at + computed.begin;
      Kind::Multiply(Into::kStore, shape, key_rows_.At(from, 0), {s_.query + part.begin, kColumns},
                     scores.At(computed.begin, 0));
      Kind::Multiply(Into::kStore, shape, value_rows_.At(from, 0),
                     {s_.grad_out + part.begin, kColumns}, grad_weights.At(computed.begin, 0));
      scale_.Cap(scores, computed, columns);
    }
    for (int64_t c = part.begin; c < part.end; c += kStrip) {
      if (scale_.capped) {
        ScoreGradients<std::true_type>(c, rows, computed);
      } else {
        ScoreGradients<std::false_type>(c, rows, computed);
      }
    }
    if (n == 0) return;
    const LeftMatrix<Word> turned = key_turned_.At(0, (at + computed.begin) / kPair);
    Kind::Multiply(
        Into::kAdd, {Kind::WidthRows(width), columns, n / kPair}, turned,
        {s_.grad_scores_paired + computed.begin / kPair * kColumns + part.begin, kColumns},
        {s_.grad_query + part.begin, kColumns});
  }

  // Of one strip of columns: P = 2^(score − lse) and dS = P ∘ (dP − delta).
  template <class Capped>
  void ScoreGradients(int64_t strip, Span rows, Span computed) {
    constexpr int kLane = kLanes<Sum>;
    using V = Vector<Sum>;
    const auto factor = static_cast<Sum>(scale_.factor);
    V lo[kPair], hi[kPair], lse[kPair], delta[kPair];
    for (int v = 0; v < kPair; ++v) {
      lo[v] = Load(s_.lo + strip + v * kLane);
      hi[v] = Load(s_.hi + strip + v * kLane);
      lse[v] = Load(s_.lse + strip + v * kLane);
      delta[v] = Load(s_.delta + strip + v * kLane);
    }
    const auto emit = [&](int64_t row, const typename Kind::Block& p,
                          const typename Kind::Block& ds) __attribute__((always_inline)) {
      const int64_t word = row * kColumns / kPair + strip / kPair;
      Kind::EmitLeft(p, s_.weights + word, kColumns / kPair);
      Kind::EmitLeft(ds, s_.grad_scores + word, kColumns / kPair);
      Kind::EmitRight(ds, s_.grad_scores_paired + row / kPair * kColumns + strip, 0);
    };
    const typename Kind::Block zero = {};
    for (int64_t r = rows.begin; r < computed.begin; r += kPair) emit(r, zero, zero);
    for (int64_t r = computed.end; r < rows.end; r += kPair) emit(r, zero, zero);
    ForRows<kPair>(
        computed, InsideOf(s_.lo + strip, s_.hi + strip, kStrip),
        [&](int64_t row, auto edge) __attribute__((always_inline)) {
          typename Kind::Block p, ds;
          for (int r = 0; r < kPair; ++r) {
            for (int v = 0; v < kPair; ++v) {
              const int64_t at = (row + r) * kColumns + strip + v * kLane;
              const V s = Load(s_.scores + at);
              p[r][v] = Exp2<Kind::kDigits>(s * factor - lse[v]);
              ds[r][v] = p[r][v] * (Load(s_.grad_weights + at) - delta[v]);
              if constexpr (Capped::value) ds[r][v] *= Sum{1} - s * s;
              if constexpr (edge) {
                p[r][v] = Seen(row + r, lo[v], hi[v], p[r][v], Sum{0});
                ds[r][v] = Seen(row + r, lo[v], hi[v], ds[r][v], Sum{0});
              }
            }
          }
          emit(row, p, ds);
        });
  }

  void AddToKeys(Span rows, Span range, int64_t at) {
    range = {RoundDown(range.begin, Kind::kRangeStep), RoundUp(range.end, Kind::kRangeStep)};
    const int64_t width = Kind::WidthColumns(args_.width), row_words = kColumns / kPair;
    const int64_t strip = Kind::PairedStrip(args_.width);
    const int64_t left = rows.begin * row_words + range.begin / kPair;
    for (int64_t w = 0; w < width; w += strip) {
      const GemmShape shape = {rows.size(), Least(strip, width - w), range.size() / kPair};
      const int64_t right = (w * kColumns + range.begin * strip) / kPair;
      const int64_t to = (at + rows.begin) * stride() + w;
      Kind::Multiply(Into::kAdd, shape, {s_.weights + left, row_words, 1},
                     {s_.grad_out_paired + right, strip}, {s_.grad_value + to, stride()});
      Kind::Multiply(Into::kAdd, shape, {s_.grad_scores + left, row_words, 1},
                     {s_.query_paired + right, strip}, {s_.grad_key + to, stride()});
    }
  }

  void AddRow(const Sum* from, Sum scale, Sum* to) const {
    for (int64_t d = 0; d < args_.width; ++d) to[d] += scale * from[d];
  }

  void AddQueryGradients(const Columns<Kind>& columns) {
    Transpose(s_.grad_query, kColumns, stride(), columns.padded(), s_.row, stride());
    for (int64_t c = 0; c < columns.count(); ++c) {
      AddRow(s_.row + c * stride(), static_cast<Sum>(args_.scale),
             static_cast<Sum*>(args_.grad_q) + columns.Index(c) * args_.width);
    }
  }

  void AddKeyGradients() {
    for (int64_t i = 0; i < keys_.size(); ++i) {
      const int64_t to = ((keys_.begin + i) * args_.key_heads + block_.key_head) * args_.width;
      AddRow(s_.grad_key + i * stride(), static_cast<Sum>(args_.scale),
             static_cast<Sum*>(args_.grad_k) + to);
      AddRow(s_.grad_value + i * stride(), 1, static_cast<Sum*>(args_.grad_v) + to);
    }
  }

  const AttentionArguments& args_;
  const AttentionBlock& block_;
  const Span keys_;
  Scratch s_;
  ScoreScale scale_;
  LeftMatrix<Word> key_rows_{}, value_rows_{}, key_turned_{};  // of the block's keys
};

}  // namespace
}  // namespace osler::OSLER_ISA
