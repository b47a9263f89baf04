// Parts of a rank's slice of a tensor: which elements of the whole tensor they are.
//
// A slice (parallel/placement.h) is laid out flat in row-major order; a part of it is a range of
// elements [begin, end). Free functions, thread-safe on disjoint memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parallel/placement.h"

namespace osler {

// Elements [begin, begin + count) of the flat slice of a tensor of `shape`.
struct TensorPart {
  std::vector<int64_t> shape;
  TensorSlice slice;
  int64_t begin = 0, count = 0;

  bool operator==(const TensorPart&) const = default;
};

TensorPart WholeTensor(const std::vector<int64_t>& shape);
// Whether it has every element, in their order.
bool IsWhole(const TensorPart& part);
// Elements of the slice.
int64_t SliceCount(const std::vector<int64_t>& shape, const TensorSlice& slice);

// A rectangle of the whole tensor seen as the matrix [dims before the slice's, the rest]. Its
// rows follow each other in the flat slice from element `first` on.
struct PartRectangle {
  int64_t row = 0, rows = 0, column = 0, columns = 0;
  int64_t first = 0;
};

// The columns of that matrix.
int64_t PartMatrixColumns(const std::vector<int64_t>& shape, const TensorSlice& slice);

// At most three rectangles that make up elements [begin, end) of the flat slice, ascending; the
// part past the slice's end (padding) is in none.
std::vector<PartRectangle> RectanglesOf(const std::vector<int64_t>& shape, const TensorSlice& slice,
                                        int64_t begin, int64_t end);

// Copies the elements that both parts (of one shape, `width` bytes an element) have; returns how
// many. `from` and `to` are the parts' elements, count of them.
int64_t CopyOverlap(const TensorPart& from_part, const char* from, const TensorPart& to_part,
                    char* to, int64_t width);
// Whether there is any such element.
bool Overlap(const TensorPart& a, const TensorPart& b);

// part_N = elements [begin, begin + N) of the flat slice of `whole` (contiguous, any float dtype),
// reading only those. Elements of padding stay as they are.
void TakePart(const at::Tensor& whole, const TensorSlice& slice, int64_t begin,
              const at::Tensor& part_N);
// The reverse: writes the part's elements, less the padding, to their places in `whole`.
void PutPart(const at::Tensor& part_N, const TensorSlice& slice, int64_t begin,
             const at::Tensor& whole);

}  // namespace osler
