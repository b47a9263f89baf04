#include "model/parameter_part.h"

#include <algorithm>
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

}  // namespace

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
