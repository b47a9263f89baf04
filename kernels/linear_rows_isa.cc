#include "kernels/interval_attention_simd_isa.h"
#include "kernels/linear_rows.h"

namespace osler::OSLER_ISA {
namespace {

inline Vector<float> LoadWide(const float* from) { return Load(from); }
inline Vector<float> LoadWide(const uint16_t* from) {
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  Half half;
  std::memcpy(&half, from, sizeof(half));
  const auto bits = __builtin_convertvector(half, Vector<uint32_t>) << 16;
  Vector<float> x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

inline float Widen(float x) { return x; }
inline float Widen(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

// Sums of neighbours: first a's, then b's.
inline Vector<float> Fold(Vector<float> a, Vector<float> b) {
  Vector<int32_t> even, odd;
  for (int lane = 0; lane < kLanes<float>; ++lane) {
    even[lane] = 2 * lane;
    odd[lane] = 2 * lane + 1;
  }
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}

// Lane i of the result is the sum of sums[i]: all are halved together, by one tree for every value.
inline Vector<float> Totals(Vector<float>* sums) {
  for (int count = kLanes<float> / 2; count > 0; count /= 2) {
    for (int i = 0; i < count; ++i) sums[i] = Fold(sums[2 * i], sums[2 * i + 1]);
  }
  return sums[0];
}

// kColumns rows of the weights against kRows rows of x. One accumulator a value and one tree over
// its lanes, whatever the tile: so a value's bits do not depend on how many rows there are.
template <int kColumns, int kRows, class Weight>
void Tile(const LinearRowsArguments& args, int64_t column, int64_t row) {
  constexpr int kValues = kColumns * kRows;
  constexpr int kPadded = (kValues + kLanes<float> - 1) / kLanes<float> * kLanes<float>;
  const auto* weight = static_cast<const Weight*>(args.weight) + column * args.depth;
  const float* x = args.x + row * args.depth;
  Vector<float> sums[kRows][kColumns] = {};  // in registers: every index below is a constant
  int64_t d = 0;
  for (; d + kLanes<float> <= args.depth; d += kLanes<float>) {
    Vector<float> weights[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      weights[c] = LoadWide(weight + c * args.depth + d);
      __builtin_prefetch(weight + (c + kColumns) * args.depth + d);  // the next tile's
    }
    for (int r = 0; r < kRows; ++r) {
      const Vector<float> values = Load(x + r * args.depth + d);
      for (int c = 0; c < kColumns; ++c) sums[r][c] += weights[c] * values;
    }
  }
  Vector<float> all[kPadded] = {};
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) all[r * kColumns + c] = sums[r][c];
  }
  for (int first = 0; first < kValues; first += kLanes<float>) {
    const Vector<float> totals = Totals(all + first);
    for (int i = first; i < Least(kValues, first + kLanes<float>); ++i) {
      const int r = i / kColumns, c = i % kColumns;
      float sum = totals[i - first];
      for (int64_t rest = d; rest < args.depth; ++rest)
        sum += Widen(weight[c * args.depth + rest]) * x[r * args.depth + rest];
      args.out[(row + r) * args.width + column + c] = sum;
    }
  }
}

template <int kColumns, class Weight>
void AllRows(const LinearRowsArguments& args, int64_t column) {
  int64_t row = 0;
  for (; row + 4 <= args.rows; row += 4) Tile<kColumns, 4, Weight>(args, column, row);
  for (; row + 2 <= args.rows; row += 2) Tile<kColumns, 2, Weight>(args, column, row);
  for (; row < args.rows; ++row) Tile<kColumns, 1, Weight>(args, column, row);
}

template <class Weight>
void Run(const LinearRowsArguments& args, int64_t from, int64_t to) {
  int64_t column = from;
  for (; column + 4 <= to; column += 4) AllRows<4, Weight>(args, column);
  for (; column < to; ++column) {
    for (int64_t row = 0; row < args.rows; ++row) Tile<1, 1, Weight>(args, column, row);
  }
}

}  // namespace

LinearRowsKernel LinearRowsFor(WeightType type) {
  return type == WeightType::kFp32 ? Run<float> : Run<uint16_t>;
}

}  // namespace osler::OSLER_ISA
