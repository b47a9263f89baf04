#include <gtest/gtest.h>

#include <cmath>

#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

using testing::Difference;
using testing::Gradients;
using testing::RandomLeaf;
using testing::RelativeNorm;
using testing::WideLeaf;

at::Tensor NormReference(const at::Tensor& x, const at::Tensor& weight, double eps,
                         NormStyle style) {
  const at::Tensor normal = x * (x.pow(2).mean(-1, true) + eps).rsqrt();
  return normal * (style == NormStyle::kGemma ? weight + 1 : weight);
}

TEST(RmsNorm, EqualsDefinitionForwardAndBackward) {
  at::manual_seed(1);
  for (const NormStyle style : {NormStyle::kGemma, NormStyle::kPlain}) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      for (const std::vector<int64_t>& shape : {std::vector<int64_t>{5, 33}, {7, 3, 8}, {1, 1}}) {
        const std::vector<at::Tensor> leaves = {RandomLeaf(shape, dtype),
                                                RandomLeaf({shape.back()}, dtype)};
        const std::vector<at::Tensor> wide = {WideLeaf(leaves[0]), WideLeaf(leaves[1])};
        const at::Tensor y = RmsNorm(leaves[0], leaves[1], 1e-3, style);
        const at::Tensor expected = NormReference(wide[0], wide[1], 1e-3, style);
        const at::Tensor weights = at::randn(shape).to(dtype);
        const double tolerance = dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 1e-5 : 1e-2;
        EXPECT_EQ(y.scalar_type(), dtype);
        EXPECT_LT(Difference(y, expected), tolerance);
        const auto grads = Gradients(y, weights, leaves),
                   expected_grads = Gradients(expected, weights, wide);
        for (size_t i = 0; i < 2; ++i)
          EXPECT_LT(Difference(grads[i], expected_grads[i]), tolerance) << i;
      }
    }
  }
}

// Activations of Gemma 3 reach 8e5: their squares stay finite because statistics are fp32.
TEST(RmsNorm, LargeBf16Values) {
  const at::Tensor x = at::full({2, 64}, 8e5, at::kBFloat16);
  const at::Tensor y = RmsNorm(x, at::zeros({64}, at::kBFloat16), 1e-6, NormStyle::kGemma);
  EXPECT_TRUE(at::equal(y, at::ones({2, 64}, at::kBFloat16)));
}

TEST(RmsNorm, RefusesAWeightOfAnotherWidth) {
  EXPECT_THROW(RmsNorm(at::zeros({2, 8}), at::zeros({7}), 1e-6, NormStyle::kGemma), c10::Error);
}

TEST(Rope, TablesFollowTheDefinition) {
  const std::vector<int64_t> positions = {0, 1, 2, 511, 8000};
  for (const RopeOptions& options : {RopeOptions{1e4, 1}, RopeOptions{1e6, 8}}) {
    const RopeTables tables = MakeRopeTables(at::tensor(positions, at::kLong), 16, options);
    ASSERT_EQ(tables.cos_TD.scalar_type(), at::kFloat);
    for (size_t t = 0; t < positions.size(); ++t) {
      for (int64_t d = 0; d < 16; ++d) {
        const double frequency =
            std::pow(options.theta, -static_cast<double>(2 * (d % 8)) / 16) / options.factor;
        const double angle = static_cast<double>(positions[t]) * frequency;
        // fp32 angles: the error grows with the angle.
        const double tolerance = 1e-6 + angle * 2e-7;
        const auto row = static_cast<int64_t>(t);
        EXPECT_NEAR(tables.cos_TD[row][d].item<double>(), std::cos(angle), tolerance);
        EXPECT_NEAR(tables.sin_TD[row][d].item<double>(), std::sin(angle), tolerance);
      }
    }
  }
}

TEST(Rope, RotatesPairsForwardAndBackward) {
  at::manual_seed(2);
  const RopeTables tables = MakeRopeTables(at::arange(9), 24, {1e4, 1});
  const at::Tensor cos = tables.cos_TD.to(at::kDouble).unsqueeze(1),
                   sin = tables.sin_TD.to(at::kDouble).unsqueeze(1);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const at::Tensor x = RandomLeaf({9, 3, 24}, dtype), wide = WideLeaf(x);
    const at::Tensor turned = at::cat({-wide.slice(2, 12, 24), wide.slice(2, 0, 12)}, 2);
    const at::Tensor expected = wide * cos + turned * sin;
    const at::Tensor weights = at::randn({9, 3, 24}).to(dtype);
    const at::Tensor y = ApplyRope(x, tables);
    const double tolerance = dtype == at::kDouble ? 1e-14 : dtype == at::kFloat ? 1e-6 : 1e-2;
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_LT(RelativeNorm(y, expected), tolerance);
    EXPECT_LT(RelativeNorm(Gradients(y, weights, {x})[0], Gradients(expected, weights, {wide})[0]),
              tolerance);
    EXPECT_FALSE(at::equal(y[1].detach(), x[1].detach()));
    EXPECT_TRUE(at::equal(y[0].detach(), x[0].detach()));  // position 0 stays
  }
}

TEST(Rope, RefusesTablesOfOtherShapes) {
  const RopeTables tables = MakeRopeTables(at::arange(4), 8, {});
  EXPECT_THROW(ApplyRope(at::zeros({5, 1, 8}), tables), c10::Error);
  EXPECT_THROW(ApplyRope(at::zeros({4, 1, 16}), tables), c10::Error);
  EXPECT_THROW(MakeRopeTables(at::arange(4), 7, {}), c10::Error);
}

}  // namespace
}  // namespace osler
