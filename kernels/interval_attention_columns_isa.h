// What the forward and the backward pass share: the columns of a block, the keys they see, scratch,
// and the walk over the rows of a score tile. For *_isa.cc only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/interval_attention_pairs_isa.h"

namespace osler::OSLER_ISA {
namespace {

struct Span {
  int64_t begin, end;

  int64_t size() const { return end - begin; }
  bool empty() const { return end <= begin; }
};

inline Span Common(Span a, Span b) { return {Most(a.begin, b.begin), Least(a.end, b.end)}; }

// Hands out aligned pieces of scratch; without a base it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  T* Take(int64_t count) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += RoundUp(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(piece);
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

template <class T>
inline const T* RowOf(const AttentionRows& rows, int64_t row, int64_t head) {
  return static_cast<const T*>(rows.data) + row * rows.row_stride + head * rows.head_stride;
}

// Columns [begin, begin + count) of a key head. Columns beyond them, up to `padded`, see nothing.
template <class Kind>
class Columns {
 public:
  Columns(const AttentionArguments& args, int64_t key_head, int64_t begin, int64_t count)
      : args_(args),
        key_head_(key_head),
        begin_(begin),
        count_(count),
        padded_(RoundUp(count, Kind::kColumnStep)) {}

  int64_t count() const { return count_; }
  int64_t padded() const { return padded_; }
  int64_t Row(int64_t c) const { return (begin_ + c) / args_.group; }
  int64_t Head(int64_t c) const { return key_head_ * args_.group + (begin_ + c) % args_.group; }
  // Of [T, H] and of contiguous [T, H, D] in units of D.
  int64_t Index(int64_t c) const { return Row(c) * args_.key_heads * args_.group + Head(c); }
  int32_t Lo(int64_t c) const { return args_.lo[Row(c)]; }
  int32_t Hi(int64_t c) const { return args_.hi[Row(c)]; }

  // The keys that any of these columns sees.
  Span Keys(Span columns) const { return {Lo(columns.begin), Hi(columns.end - 1)}; }
  Span Real(Span columns) const { return {columns.begin, Least(columns.end, count_)}; }

  // Each column's interval relative to `key`, in the type of the scores so that lanes compare.
  template <class T>
  void Relative(int64_t key, T* lo, T* hi) const {
    for (int64_t c = 0; c < count_; ++c) {
      lo[c] = static_cast<T>(Clamp(Lo(c) - key));
      hi[c] = static_cast<T>(Clamp(Hi(c) - key));
    }
    for (int64_t c = count_; c < padded_; ++c) lo[c] = hi[c] = 0;
  }

 private:
  static int64_t Clamp(int64_t x) { return Most<int64_t>(-1, Least<int64_t>(x, 1 << 20)); }

  const AttentionArguments& args_;
  int64_t key_head_, begin_, count_, padded_;
};

// Rows of a score tile are keys. Calls body(row, edge) in steps of kPair, edge a std::true_type
// where some column does not see some of these rows.
template <int kPair, class Body>
inline void ForRows(Span rows, Span inside, Body body) {
  inside = Common(rows, {RoundUp(inside.begin, kPair), RoundDown(inside.end, kPair)});
  if (inside.empty()) inside = {rows.end, rows.end};
  for (int64_t r = rows.begin; r < inside.begin; r += kPair) body(r, std::true_type());
  for (int64_t r = inside.begin; r < inside.end; r += kPair) body(r, std::false_type());
  for (int64_t r = inside.end; r < rows.end; r += kPair) body(r, std::true_type());
}

// x where the interval holds the row, else `other`.
template <class T>
inline Vector<T> Seen(int64_t row, const Vector<T>& lo, const Vector<T>& hi, const Vector<T>& x,
                      T other) {
  const Vector<T> r = Splat(static_cast<T>(row));
  const Vector<T> before_end = r < hi ? x : Splat(other);
  return r < lo ? Splat(other) : before_end;
}

// The rows that all columns of a strip see.
template <class T>
inline Span InsideOf(const T* lo, const T* hi, int64_t columns) {
  T begin = lo[0], end = hi[0];
  for (int64_t c = 1; c < columns; ++c) {
    begin = Most(begin, lo[c]);
    end = Least(end, hi[c]);
  }
  return {static_cast<int64_t>(begin), static_cast<int64_t>(end)};
}

template <class Kind>
inline Span KeySteps(Span keys, int64_t base) {
  return {RoundDown(keys.begin - base, Kind::kKeyStep), RoundUp(keys.end - base, Kind::kKeyStep)};
}

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

// Raw scores s become exponents of two: s · factor, or factor · tanh(s · inner) under a soft cap.
struct ScoreScale {
  explicit ScoreScale(const AttentionArguments& args)
      : capped(args.soft_cap > 0),
        factor((capped ? args.soft_cap : args.scale) * kLog2E),
        inner(capped ? args.scale / args.soft_cap : 0) {}
  bool capped;
  double factor, inner;

  // tanh(s · inner) in place on rows × columns.
  template <class T>
  void Cap(RightMatrix<T> s, Span rows, int64_t columns) const {
    if (!capped) return;
    const auto scale = static_cast<T>(inner);
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      for (int64_t c = 0; c < columns; c += kLanes<T>) {
        T* at = s.At(r, c).data;
        Store(at, Tanh(Load(at) * scale));
      }
    }
  }
};

}  // namespace
}  // namespace osler::OSLER_ISA
