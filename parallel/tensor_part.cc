#include "parallel/tensor_part.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "absl/functional/function_ref.h"

namespace osler {
namespace {

int64_t Product(std::vector<int64_t>::const_iterator from,
                std::vector<int64_t>::const_iterator to) {
  return std::accumulate(from, to, int64_t{1}, std::multiplies<>());
}

// Calls visit(rectangle of the whole parameter, its elements of the part), both of one shape.
void ForEachRectangle(const at::Tensor& whole, const TensorSlice& slice, int64_t begin,
                      const at::Tensor& part_N,
                      absl::FunctionRef<void(const at::Tensor&, const at::Tensor&)> visit) {
  const std::vector<int64_t> shape = whole.sizes().vec();
  const at::Tensor matrix = whole.view({-1, PartMatrixColumns(shape, slice)});
  for (const PartRectangle& one : RectanglesOf(shape, slice, begin, begin + part_N.numel())) {
    visit(
        matrix.narrow(0, one.row, one.rows).narrow(1, one.column, one.columns),
        part_N.narrow(0, one.first - begin, one.rows * one.columns).view({one.rows, one.columns}));
  }
}

// A 0-d tensor has one element, as a tensor of shape [1].
std::vector<int64_t> AtLeastOneDim(const std::vector<int64_t>& shape) {
  return shape.empty() ? std::vector<int64_t>{1} : shape;
}

// Elements that follow each other in the whole tensor and in a part.
struct Run {
  int64_t whole = 0, part = 0, count = 0;
};

// The rectangles of a part as runs, one a row.
class Runs {
 public:
  explicit Runs(const TensorPart& part)
      : begin_(part.begin),
        columns_(PartMatrixColumns(part.shape, part.slice)),
        rectangles_(RectanglesOf(part.shape, part.slice, part.begin, part.begin + part.count)) {}

  // Those that have elements of [begin, end) of the whole tensor, cut to it; false from `visit`
  // ends it.
  bool Visit(int64_t begin, int64_t end, absl::FunctionRef<bool(const Run&)> visit) const {
    for (const PartRectangle& one : rectangles_) {
      const int64_t first = one.row * columns_ + one.column;  // where its first row begins
      // The first row that ends after `begin`.
      const int64_t past = begin - first - one.columns;
      for (int64_t row = past < 0 ? 0 : past / columns_ + 1; row < one.rows; ++row) {
        const int64_t at = first + row * columns_;
        const int64_t from = std::max(at, begin), to = std::min(at + one.columns, end);
        if (at >= end) break;
        if (from >= to) continue;
        if (!visit({from, one.first - begin_ + row * one.columns + from - at, to - from}))
          return false;
      }
    }
    return true;
  }

 private:
  int64_t begin_, columns_;
  std::vector<PartRectangle> rectangles_;
};

constexpr int64_t kEverything = INT64_MAX;

// Calls visit(run in a, run in b) for all that both have.
bool VisitOverlap(const TensorPart& a, const TensorPart& b,
                  absl::FunctionRef<bool(const Run&, const Run&)> visit) {
  const Runs runs_a(a), runs_b(b);
  return runs_b.Visit(0, kEverything, [&](const Run& in_b) {
    return runs_a.Visit(in_b.whole, in_b.whole + in_b.count, [&](const Run& in_a) {
      return visit(in_a, {in_a.whole, in_b.part + in_a.whole - in_b.whole, in_a.count});
    });
  });
}

}  // namespace

TensorPart WholeTensor(const std::vector<int64_t>& shape) {
  TensorPart whole{AtLeastOneDim(shape), {}, 0, 0};
  whole.slice.length = whole.shape[0];
  whole.count = SliceCount(whole.shape, whole.slice);
  return whole;
}

bool IsWhole(const TensorPart& part) {
  return part.begin == 0 && part.slice.begin == 0 &&
         part.count == Product(part.shape.begin(), part.shape.end());
}

int64_t SliceCount(const std::vector<int64_t>& shape, const TensorSlice& slice) {
  return Product(shape.begin(), shape.begin() + slice.dim) * slice.length *
         Product(shape.begin() + slice.dim + 1, shape.end());
}

int64_t CopyOverlap(const TensorPart& from_part, const char* from, const TensorPart& to_part,
                    char* to, int64_t width) {
  int64_t copied = 0;
  VisitOverlap(from_part, to_part, [&](const Run& source, const Run& target) {
    std::memcpy(to + target.part * width, from + source.part * width,
                static_cast<size_t>(target.count * width));
    copied += target.count;
    return true;
  });
  return copied;
}

bool Overlap(const TensorPart& a, const TensorPart& b) {
  return !VisitOverlap(a, b, [](const Run&, const Run&) { return false; });
}

int64_t PartMatrixColumns(const std::vector<int64_t>& shape, const TensorSlice& slice) {
  return Product(shape.begin() + slice.dim, shape.end());
}

std::vector<PartRectangle> RectanglesOf(const std::vector<int64_t>& shape, const TensorSlice& slice,
                                        int64_t begin, int64_t end) {
  const int64_t rows = Product(shape.begin(), shape.begin() + slice.dim);
  const int64_t inner = Product(shape.begin() + slice.dim + 1, shape.end());
  const int64_t width = slice.length * inner;
  const int64_t offset = slice.begin * inner;
  end = std::min(end, rows * width);
  std::vector<PartRectangle> rectangles;
  while (begin < end) {
    const int64_t row = begin / width, column = begin % width;
    // Whole rows where the part begins and ends with them, else what is left of one row.
    const int64_t whole_rows = column == 0 ? (end - begin) / width : 0;
    PartRectangle one{row, 1, offset + column, std::min(width - column, end - begin), begin};
    if (whole_rows > 0) one = {row, whole_rows, offset, width, begin};
    begin += one.rows * one.columns;
    rectangles.push_back(one);
  }
  return rectangles;
}

void TakePart(const at::Tensor& whole, const TensorSlice& slice, int64_t begin,
              const at::Tensor& part_N) {
  ForEachRectangle(whole, slice, begin, part_N,
                   [](const at::Tensor& from, const at::Tensor& to) { to.copy_(from); });
}

void PutPart(const at::Tensor& part_N, const TensorSlice& slice, int64_t begin,
             const at::Tensor& whole) {
  ForEachRectangle(whole, slice, begin, part_N,
                   [](const at::Tensor& to, const at::Tensor& from) { to.copy_(from); });
}

}  // namespace osler
