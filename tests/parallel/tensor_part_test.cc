// Parts of slices against views of the whole tensor.
#include "parallel/tensor_part.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/testing/matchers.h"

namespace osler {
namespace {

struct Case {
  std::vector<int64_t> shape;
  Split split;
  int tensor = 1;
  int64_t unit = 1;
};
const Case kCases[] = {
    {{7, 5}, Split::kReplicated},       {{8, 5}, Split::kColumn, 2},
    {{8, 5}, Split::kColumn, 4, 2},     {{4, 6}, Split::kColumn, 4, 2},  // two share a unit
    {{5, 8}, Split::kRow, 2},           {{5, 12}, Split::kRow, 3},
    {{9}, Split::kColumn, 3},           {{11}, Split::kReplicated, 2},
    {{6, 2, 3}, Split::kVocabulary, 2},
};

class TensorPartTest : public ::testing::TestWithParam<Case> {};

TEST_P(TensorPartTest, TakesAndPutsWhatIsOfTheSliceAndNothingElse) {
  const Case& c = GetParam();
  const PlacementRule rule{"w", c.split, c.unit};
  const at::Tensor whole =
      at::arange(1, c10::multiply_integers(c.shape) + 1, at::kDouble).view(c.shape);
  for (const int64_t shards : {1, 2, 3, 4, 7}) {
    at::Tensor rebuilt = at::zeros(c.shape, at::kDouble);
    for (int t = 0; t < c.tensor; ++t) {
      const TensorSlice slice = SliceFor(rule, c.shape, t, c.tensor);
      const at::Tensor local = Narrow(whole, slice).flatten();
      const int64_t each = (local.numel() + shards - 1) / shards;
      const at::Tensor padded = at::cat({local, at::full({each * shards - local.numel()}, -1.0)});
      for (int64_t s = 0; s < shards; ++s) {
        at::Tensor part = at::full({each}, -1, at::kDouble);
        TakePart(whole, slice, s * each, part);
        EXPECT_TRUE(at::equal(part, padded.narrow(0, s * each, each))) << shards << " " << s;
        PutPart(part, slice, s * each, rebuilt);
      }
    }
    EXPECT_TRUE(at::equal(rebuilt, whole)) << shards;
  }
}

TEST_P(TensorPartTest, RectanglesAreFew) {
  const Case& c = GetParam();
  const TensorSlice slice = SliceFor({"w", c.split, c.unit}, c.shape, 0, c.tensor);
  EXPECT_LE(RectanglesOf(c.shape, slice, 1, c10::multiply_integers(c.shape) - 1).size(), 3U);
  EXPECT_TRUE(RectanglesOf(c.shape, slice, 4, 4).empty());
}

// How ranks hold a tensor: cut along the tensor axis, each slice into flat pieces.
std::vector<TensorPart> PartsOf(const Case& c, Split split, int tensor, int64_t shards) {
  std::vector<TensorPart> parts;
  for (int t = 0; t < tensor; ++t) {
    const TensorSlice slice = SliceFor({"w", split, c.unit}, c.shape, t, tensor);
    const int64_t all = SliceCount(c.shape, slice), each = (all + shards - 1) / shards;
    for (int64_t s = 0; s < shards; ++s) {
      const int64_t begin = std::min(s * each, all);
      parts.push_back({c.shape, slice, begin, std::min(each, all - begin)});
    }
  }
  return parts;
}

// Any cut is made again from any other.
TEST_P(TensorPartTest, OverlapsMakeUpEveryPart) {
  const Case& c = GetParam();
  const at::Tensor whole =
      at::arange(1, c10::multiply_integers(c.shape) + 1, at::kDouble).view(c.shape);
  const auto elements = [&](const TensorPart& part) {
    at::Tensor x = at::zeros({part.count}, at::kDouble);
    TakePart(whole, part.slice, part.begin, x);
    return x;
  };
  for (const int64_t from_shards : {1, 2, 5}) {
    for (const int64_t to_shards : {1, 3, 4}) {
      for (const bool swap : {false, true}) {
        auto from = PartsOf(c, Split::kReplicated, 1, from_shards);
        auto to = PartsOf(c, c.split, c.tensor, to_shards);
        if (swap) std::swap(from, to);
        for (const TensorPart& part : to) {
          at::Tensor made = at::zeros({part.count}, at::kDouble);
          for (const TensorPart& source : from) {
            const at::Tensor x = elements(source);
            at::Tensor before = made.clone();
            const int64_t copied =
                CopyOverlap(source, static_cast<const char*>(x.const_data_ptr()), part,
                            static_cast<char*>(made.mutable_data_ptr()), 8);
            EXPECT_EQ(copied > 0, Overlap(source, part));
            EXPECT_LE(made.ne(before).sum().item<int64_t>(), copied);
          }
          EXPECT_TRUE(at::equal(made, elements(part)));
        }
      }
    }
  }
}

TEST(WholeTensorTest, EveryShape) {
  EXPECT_EQ(WholeTensor({}).count, 1);
  EXPECT_EQ(WholeTensor({0, 3}).count, 0);
  EXPECT_EQ(WholeTensor({4, 3}).count, 12);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, {0, 3}, {4, 3}})
    EXPECT_TRUE(IsWhole(WholeTensor(shape)));
  EXPECT_FALSE(IsWhole({{4, 3}, {0, 0, 4}, 0, 11}));
  EXPECT_FALSE(IsWhole({{4, 3}, {1, 0, 2}, 0, 8}));
  EXPECT_TRUE(IsWhole({{4, 3}, {1, 0, 3}, 0, 12}));
}

INSTANTIATE_TEST_SUITE_P(Shapes, TensorPartTest, ::testing::ValuesIn(kCases));

}  // namespace
}  // namespace osler
