#include "kernels/linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace osler {
namespace {

at::Tensor Random(at::IntArrayRef shape, at::ScalarType dtype, int64_t seed) {
  // A fixed pattern of sines: no generator needed.
  const at::Tensor n = at::arange(c10::multiply_integers(shape), at::kDouble);
  return at::sin(n * 12.9898 + static_cast<double>(seed)).mul(1.7).view(shape).to(dtype);
}

class LinearTest : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(LinearTest, EqualsTheProductInFp64) {
  for (const auto& [rows, depth, width] : std::vector<std::array<int64_t, 3>>{{1, 64, 64},
                                                                              {1, 7, 3},
                                                                              {2, 130, 9},
                                                                              {3, 48, 5},
                                                                              {5, 33, 34},
                                                                              {8, 640, 257},
                                                                              {13, 100, 12},
                                                                              {16, 96, 8},
                                                                              {17, 96, 8},
                                                                              {1, 1, 1}}) {
    const at::Tensor x = Random({rows, depth}, GetParam(), 1);
    const at::Tensor weight = Random({width, depth}, GetParam(), 2);
    const at::Tensor bias = Random({width}, GetParam(), 3);
    const at::Tensor exact = at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t());
    // A sum of `depth` rounded products, then one rounding to the result's dtype.
    const double half_unit = GetParam() == at::kBFloat16 ? 1.0 / 256 : 0;
    const auto check = [&](const at::Tensor& got, const at::Tensor& want) {
      ASSERT_EQ(got.scalar_type(), GetParam());
      const at::Tensor size =
          at::matmul(x.to(at::kDouble).abs(), weight.to(at::kDouble).abs().t()) + 2;
      const at::Tensor bound =
          want.abs() * half_unit + size * (GetParam() == at::kDouble ? 1e-14 : 2e-6);
      EXPECT_TRUE((got.to(at::kDouble) - want).abs().le(bound).all().item<bool>())
          << rows << " " << depth << " " << width;
    };
    check(Linear(x, weight, {}), exact);
    check(Linear(x, weight, bias), exact + bias.to(at::kDouble));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, LinearTest,
                         ::testing::Values(at::kFloat, at::kDouble, at::kBFloat16));

TEST(Linear, RowsDoNotDependOnEachOther) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = Random({16, 203}, dtype, 4), weight = Random({77, 203}, dtype, 5);
    const at::Tensor all = Linear(x, weight, {});
    for (int64_t rows = 1; rows <= 16; ++rows) {
      const int64_t first = 16 - rows;
      EXPECT_TRUE(
          at::equal(Linear(x.narrow(0, first, rows), weight, {}), all.narrow(0, first, rows)))
          << rows;
    }
  }
}

TEST(Linear, IsDifferentiable) {
  const at::Tensor x = Random({2, 6}, at::kFloat, 1).requires_grad_();
  const at::Tensor weight = Random({3, 6}, at::kFloat, 2).requires_grad_();
  Linear(x, weight, {}).sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), weight.detach().sum(0).expand({2, 6})));
  EXPECT_TRUE(at::allclose(weight.grad(), x.detach().sum(0).expand({3, 6})));
}

TEST(Linear, TakesRowsThatAreNotDense) {
  const at::Tensor x = Random({6, 4}, at::kFloat, 1).t(), weight = Random({3, 6}, at::kFloat, 2);
  EXPECT_TRUE(at::allclose(Linear(x, weight, {}), at::matmul(x, weight.t())));
  EXPECT_TRUE(at::allclose(Linear(x, Random({6, 3}, at::kFloat, 2).t(), {}),
                           at::matmul(x, Random({6, 3}, at::kFloat, 2))));
  EXPECT_THROW(Linear(x, Random({3, 5}, at::kFloat, 2), {}), c10::Error);
}

}  // namespace
}  // namespace osler
