#include "kernels/accumulate.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sub.h>
#include <gtest/gtest.h>

#include <limits>

namespace osler {
namespace {

at::Tensor Values(int64_t count, double step, at::ScalarType dtype) {
  return at::sin(at::arange(count, at::kDouble).mul_(step)).to(dtype);
}

TEST(Accumulate, IsTheSumOfTheWidenedValues) {
  for (const auto dtype : {at::kBFloat16, at::kFloat}) {
    at::Tensor sum = Values(70001, 0.1, at::kFloat);
    const at::Tensor value = Values(70001, 0.7, dtype);
    const at::Tensor expected = at::add(sum, value.to(at::kFloat));
    Accumulate(sum, value);
    EXPECT_TRUE(at::equal(sum, expected));
  }
}

TEST(Accumulate, TakesTransposedValuesAndScalars) {
  at::Tensor sum = Values(12, 0.3, at::kFloat).view({3, 4});
  const at::Tensor value = Values(12, 0.9, at::kBFloat16).view({4, 3}).t();
  const at::Tensor expected = at::add(sum, value.to(at::kFloat));
  Accumulate(sum, value);
  EXPECT_TRUE(at::equal(sum, expected));
  at::Tensor one = at::full({}, 1.0, at::kFloat);
  Accumulate(one, at::full({}, 0.5, at::kBFloat16));
  EXPECT_EQ(one.item<float>(), 1.5F);
}

TEST(AccumulateProduct, IsTheSumOfTheWideProduct) {
  for (const auto dtype : {at::kBFloat16, at::kFloat, at::kDouble}) {
    const auto wide = dtype == at::kBFloat16 ? at::kFloat : dtype;
    at::Tensor sum = Values(700 * 900, 0.1, wide).view({700, 900});  // more than one slice of E
    const at::Tensor a = Values(5 * 700, 0.3, dtype).view({5, 700}),
                     b = Values(5 * 900, 0.7, dtype).view({5, 900});
    const at::Tensor exact =
        at::add(sum.to(at::kDouble), at::mm(a.to(at::kDouble).t(), b.to(at::kDouble)));
    AccumulateProduct(sum, a, b);
    const double tolerance = dtype == at::kBFloat16 ? 2e-2 : dtype == at::kFloat ? 1e-5 : 1e-13;
    EXPECT_LT(at::sub(sum.to(at::kDouble), exact).abs().max().item<double>(), tolerance);
  }
}

TEST(Accumulate, KeepsInfinitiesAndRefusesOtherShapes) {
  at::Tensor sum = at::full({2}, 1.0, at::kFloat);
  Accumulate(sum, at::full({2}, std::numeric_limits<double>::infinity(), at::kBFloat16));
  EXPECT_EQ(sum[1].item<float>(), std::numeric_limits<float>::infinity());
  EXPECT_THROW(Accumulate(sum, at::full({3}, 1.0, at::kBFloat16)), c10::Error);
}

}  // namespace
}  // namespace osler
