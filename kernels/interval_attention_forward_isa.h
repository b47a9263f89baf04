// The forward pass of one block of columns: an online softmax over tiles of keys, scores and
// outputs transposed (keys or width by columns), so that a column's statistics are a lane. For
// *_isa.cc only. Dao, FlashAttention-2 (arXiv 2307.08691), algorithm 1.
#pragma once

#include "kernels/interval_attention_columns_isa.h"

namespace osler::OSLER_ISA {
namespace {

template <class Kind>
class ForwardPass {
 public:
  using Word = typename Kind::Word;
  using Sum = typename Kind::Sum;
  using Input = typename Kind::Input;
  static constexpr int kPair = Kind::kPair;
  static constexpr int64_t kKeys = 128;
  static constexpr int64_t kTiles = kForwardColumns / Kind::kColumns;
  static constexpr int64_t kStrip = kPair * kLanes<Sum>;

  struct Scratch {
    Scratch(int64_t width, std::byte* base) {
      const int64_t stride = Kind::WidthStride(width);
      Carver carver(base);
      query = carver.Take<Word>(kForwardColumns * stride / kPair);
      out = carver.Take<Sum>(kForwardColumns * stride);
      key_rows = carver.Take<Word>(kKeys * stride / kPair);
      value_rows = carver.Take<Word>(kPair == 1 ? kKeys * stride : 0);
      value_pairs = carver.Take<Word>(Kind::RowPairWords(kKeys, width));
      scores = carver.Take<Sum>(kKeys * Kind::kColumns);
      weights = kPair == 1 ? reinterpret_cast<Word*>(scores)
                           : carver.Take<Word>(kKeys / kPair * Kind::kColumns);
      top = carver.Take<Sum>(kForwardColumns);
      sum = carver.Take<Sum>(kForwardColumns);
      lo = carver.Take<Sum>(Kind::kColumns);
      hi = carver.Take<Sum>(Kind::kColumns);
      row = carver.Take<Sum>(Kind::kColumns * stride);
      bytes = carver.used();
    }
    Word *query, *key_rows, *value_rows, *value_pairs, *weights;
    Sum *out, *scores, *top, *sum, *lo, *hi, *row;
    int64_t bytes;
  };

  ForwardPass(const AttentionArguments& args, const AttentionBlock& block, std::byte* scratch)
      : args_(args), block_(block), s_(args.width, scratch), scale_(args) {}

  void Run() {
    const typename Kind::Registers registers;
    (void)registers;
    const int64_t tiles = (block_.columns + Kind::kColumns - 1) / Kind::kColumns;
    for (int64_t t = 0; t < tiles; ++t) Start(t);
    const Span keys = Of(0, block_.columns).Keys({0, block_.columns});
    for (int64_t key = keys.begin; key < keys.end; key += kKeys) {
      const Span tile_keys = {key, Least(key + kKeys, keys.end)};
      PackKeys(tile_keys);
      for (int64_t t = 0; t < tiles; ++t) AddKeys(t, tile_keys);
    }
    for (int64_t t = 0; t < tiles; ++t) Finish(t);
  }

 private:
  Columns<Kind> Of(int64_t begin, int64_t count) const {
    return Columns<Kind>(args_, block_.key_head, block_.column + begin, count);
  }
  Columns<Kind> Tile(int64_t t) const {
    const int64_t begin = t * Kind::kColumns;
    return Of(begin, Least(Kind::kColumns, block_.columns - begin));
  }
  int64_t stride() const { return Kind::WidthStride(args_.width); }
  RightMatrix<Word> Query(int64_t t) const {
    return {s_.query + t * Kind::kColumns * stride() / kPair, Kind::kColumns};
  }
  RightMatrix<Sum> Out(int64_t t) const {
    return {s_.out + t * Kind::kColumns * stride(), Kind::kColumns};
  }

  void Start(int64_t t) {
    const Columns<Kind> columns = Tile(t);
    const auto row = [&](int64_t c) {
      return RowOf<Input>(args_.q, columns.Row(c), columns.Head(c));
    };
    Kind::PackTransposed(row, columns.count(), columns.padded(), args_.width, Query(t).data,
                         Kind::kColumns);
    for (int64_t c = 0; c < columns.padded(); ++c) {
      s_.top[t * Kind::kColumns + c] = -__builtin_inf();
      s_.sum[t * Kind::kColumns + c] = 0;
    }
    std::memset(Out(t).data, 0, static_cast<size_t>(Kind::kColumns * stride()) * sizeof(Sum));
  }

  void PackKeys(Span keys) {
    if constexpr (Kind::kInPlace) {
      const int64_t head = block_.key_head;
      keys_ = {RowOf<Word>(args_.k, keys.begin, head), args_.k.row_stride, 1};
      values_ = {RowOf<Word>(args_.v, keys.begin, head), 1, args_.v.row_stride};
    } else {
      keys_ = {s_.key_rows, stride() / kPair, 1};
      values_ = Kind::ByWidth(s_.value_rows, s_.value_pairs, kKeys / kPair, 0, args_.width);
      CopyKeys(keys);
    }
  }

  void CopyKeys(Span keys) {
    const int64_t head = block_.key_head, width = args_.width;
    const auto k = [&](int64_t i) { return RowOf<Input>(args_.k, keys.begin + i, head); };
    const auto v = [&](int64_t i) { return RowOf<Input>(args_.v, keys.begin + i, head); };
    Kind::PackRows(k, keys.size(), RoundUp(keys.size(), Kind::kKeyStep), width, s_.key_rows);
    if constexpr (kPair == 1) {
      Kind::PackRows(v, keys.size(), keys.size(), width, s_.value_rows);
    } else {
      Kind::PackRowPairs(v, keys.size(), RoundUp(keys.size(), 32), width, s_.value_pairs,
                         kKeys / kPair);
    }
  }

  void AddKeys(int64_t t, Span keys) {
    const Columns<Kind> columns = Tile(t);
    if (Common(columns.Keys({0, columns.count()}), keys).empty()) return;
    columns.Relative(keys.begin, s_.lo, s_.hi);
    for (int64_t c = 0; c < columns.padded(); c += Kind::kPartColumns) {
      const Span part = {c, Least(c + Kind::kPartColumns, columns.padded())};
      const Span seen = Common(columns.Keys(columns.Real(part)), keys);
      if (!seen.empty()) AddPart(t, part, KeySteps<Kind>(seen, keys.begin));
    }
  }

  // rows: of the key tile.
  void AddPart(int64_t t, Span part, Span rows) {
    const int64_t width = args_.width, columns = part.size(), words = rows.size() / kPair;
    const RightMatrix<Sum> scores = {s_.scores, Kind::kColumns};
    const RightMatrix<Word> weights = {s_.weights, Kind::kColumns};
    const RightMatrix<Word> query = Query(t).At(0, part.begin);
    const RightMatrix<Sum> out = Out(t).At(0, part.begin);
    Kind::Multiply(Into::kStore, {rows.size(), columns, Kind::WidthWords(width)},
                   keys_.At(rows.begin, 0), {query.data, query.stride}, scores.At(rows.begin, 0));
    scale_.Cap(scores, rows, columns);
    for (int64_t c = 0; c < columns; c += kStrip) {
      Softmax(t, part.begin + c, rows, scores.At(0, c), weights.At(0, c));
    }
    const RightMatrix<Word> used = weights.At(rows.begin / kPair, 0);
    Kind::Multiply(Into::kAdd, {Kind::WidthRows(width), columns, words},
                   values_.At(0, rows.begin / kPair), {used.data, used.stride}, out);
  }

  // Scores of one strip of columns to weights 2^(score − top); sums and outputs follow the top.
  void Softmax(int64_t t, int64_t strip, Span rows, RightMatrix<Sum> scores,
               RightMatrix<Word> weights) {
    constexpr int kLane = kLanes<Sum>;
    using V = Vector<Sum>;
    const auto factor = static_cast<Sum>(scale_.factor);
    const Sum nothing = -__builtin_inf();
    Sum* const sums = s_.sum + t * Kind::kColumns + strip;
    const Span inside = InsideOf(s_.lo + strip, s_.hi + strip, kStrip);
    V lo[kPair], hi[kPair], top[kPair], sum[kPair];
    for (int v = 0; v < kPair; ++v) {
      lo[v] = Load(s_.lo + strip + v * kLane);
      hi[v] = Load(s_.hi + strip + v * kLane);
      top[v] = Splat(nothing);
    }
    ForRows<kPair>(
        rows, inside, [&](int64_t row, auto edge) __attribute__((always_inline)) {
          for (int r = 0; r < kPair; ++r) {
            for (int v = 0; v < kPair; ++v) {
              V x = Load(scores.At(row + r, v * kLane).data) * factor;
              if constexpr (edge) x = Seen(row + r, lo[v], hi[v], x, nothing);
              top[v] = Larger(x, top[v]);
            }
          }
        });
    RaiseTop(t, strip, top);
    for (int v = 0; v < kPair; ++v) sum[v] = Load(sums + v * kLane);
    ForRows<kPair>(
        rows, inside, [&](int64_t row, auto edge) __attribute__((always_inline)) {
          typename Kind::Block p;
          for (int r = 0; r < kPair; ++r) {
            for (int v = 0; v < kPair; ++v) {
              const V x = Load(scores.At(row + r, v * kLane).data) * factor - top[v];
              p[r][v] = Exp2<Kind::kDigits>(x);
              if constexpr (edge) p[r][v] = Seen(row + r, lo[v], hi[v], p[r][v], Sum{0});
              sum[v] += p[r][v];
            }
          }
          Word* to = weights.At(row / kPair, 0).data;
          if constexpr (kPair == 1) Kind::EmitLeft(p, to, 0);
          Kind::EmitRight(p, to, 0);
        });
    for (int v = 0; v < kPair; ++v) Store(sums + v * kLane, sum[v]);
  }

  // Takes the new scores' maxima and returns the exponent to subtract. While a maximum grows by
  // less than 2^8 the old one serves: weights stay far from overflow, and nothing is rescaled.
  void RaiseTop(int64_t t, int64_t strip, Vector<Sum> (&top)[kPair]) {
    constexpr int kLane = kLanes<Sum>;
    const Sum nothing = -__builtin_inf();
    for (int v = 0; v < kPair; ++v) {
      Sum* const tops = s_.top + t * Kind::kColumns + strip + v * kLane;
      Sum* const sums = s_.sum + t * Kind::kColumns + strip + v * kLane;
      const Vector<Sum> old = Load(tops);
      const Vector<Sum> raised = top[v] > old + Sum{8} ? top[v] : old;
      top[v] = raised == nothing ? Vector<Sum>{} : raised;
      bool any = false, fresh = true;
      for (int i = 0; i < kLane; ++i) any |= raised[i] != old[i];
      if (!any) continue;
      for (int i = 0; i < kLane; ++i) fresh &= old[i] == nothing;
      Store(tops, raised);
      if (fresh) continue;
      const Vector<Sum> shrink = raised == old ? Splat(Sum{1}) : Exp2<Digits::kFull>(old - raised);
      Store(sums, Load(sums) * shrink);
      for (int64_t d = 0; d < Kind::WidthRows(args_.width); ++d) {
        Sum* out = Out(t).At(d, strip + v * kLane).data;
        Store(out, Load(out) * shrink);
      }
    }
  }

  void Finish(int64_t t) {
    const Columns<Kind> columns = Tile(t);
    const RightMatrix<Sum> out = Out(t);
    Transpose(out.data, out.stride, stride(), columns.padded(), s_.row, stride());
    for (int64_t c = 0; c < columns.count(); ++c) {
      const Sum top = s_.top[t * Kind::kColumns + c], sum = s_.sum[t * Kind::kColumns + c];
      Sum* row = s_.row + c * stride();
      const Sum inverse = 1 / sum;
      for (int64_t d = 0; d < args_.width; ++d) row[d] *= inverse;
      if (args_.out_sums != nullptr) {
        std::memcpy(static_cast<Sum*>(args_.out_sums) + columns.Index(c) * args_.width, row,
                    static_cast<size_t>(args_.width) * sizeof(Sum));
      } else {
        Narrow(row, args_.width,
               const_cast<Input*>(RowOf<Input>(args_.out, columns.Row(c), columns.Head(c))));
      }
      static_cast<Sum*>(args_.lse)[columns.Index(c)] = static_cast<Sum>(
          (static_cast<double>(top) + __builtin_log2(static_cast<double>(sum))) * kLn2);
    }
  }

  const AttentionArguments& args_;
  const AttentionBlock& block_;
  Scratch s_;
  ScoreScale scale_;
  LeftMatrix<Word> keys_{}, values_{};  // of the key tile: by key, and by width
};

}  // namespace
}  // namespace osler::OSLER_ISA
