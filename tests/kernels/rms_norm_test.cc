#include "kernels/rms_norm.h"

#include "kernels/rms_norm_cpu.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

using testing::Difference;
using testing::ExpectGradientsOfDifferences;
using testing::ExpectSameBitsForThreads;
using testing::Gradients;
using testing::IsaLevels;
using testing::RandomLeaf;
using testing::RelativeNorm;
using testing::SameBits;
using testing::WideLeaf;

constexpr double kEps = 1e-3;
const NormStyle kStyles[] = {NormStyle::kGemma, NormStyle::kPlain};
const at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kBFloat16};

double Tolerance(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 1e-5 : 1e-2;
}

// In fp64 without any rounding.
at::Tensor Reference(const at::Tensor& x, const at::Tensor& weight, NormStyle style) {
  const at::Tensor normal = x / (x.pow(2).mean(-1, true) + kEps).sqrt();
  return normal * (style == NormStyle::kGemma ? weight + 1 : weight);
}

// One ATen operation after another, rounding as transformers' modules round.
at::Tensor Composition(const at::Tensor& x, const at::Tensor& weight, NormStyle style) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normal = wide * (wide.pow(2).mean(-1, true) + kEps).rsqrt();
  if (style == NormStyle::kPlain) return weight * normal.to(x.scalar_type());
  return (normal * (weight.to(at::kFloat) + 1)).to(x.scalar_type());
}

// Forward and backward of the unfused definition, in fp64.
struct Expected {
  at::Tensor y, grad_x, grad_weight;
};
Expected ReferenceOf(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& grad,
                     NormStyle style) {
  const std::vector<at::Tensor> wide = {WideLeaf(x), WideLeaf(weight)};
  const at::Tensor y = Reference(wide[0], wide[1], style);
  const auto grads = Gradients(y, grad, wide);
  return {y, grads[0], grads[1]};
}

TEST(RmsNormKernel, EveryInstructionSetAndWidth) {
  at::manual_seed(1);
  for (const CpuIsa isa : IsaLevels()) {
    for (const int64_t width : {1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 257, 1153}) {
      for (const NormStyle style : kStyles) {
        for (const at::ScalarType dtype : kTypes) {
          const at::Tensor x = at::randn({9, width}, at::kDouble).to(dtype),
                           w = at::randn({width}, at::kDouble).to(dtype),
                           g = at::randn({9, width}, at::kDouble).to(dtype);
          const NormOptions norm{.eps = kEps, .style = style, .isa = isa};
          const NormOutput out = RmsNormForward(x, w, norm);
          const NormGradients grads =
              RmsNormBackward(g, {}, {x, w, out.inverse_rms}, WeightGradient::kWanted, norm);
          const Expected expected = ReferenceOf(x, w, g, style);
          const double tolerance = Tolerance(dtype);
          EXPECT_LT(Difference(out.y, expected.y), tolerance) << CpuIsaName(isa) << " " << width;
          EXPECT_LT(Difference(grads.x, expected.grad_x), tolerance) << CpuIsaName(isa) << width;
          EXPECT_LT(Difference(grads.weight_D, expected.grad_weight), tolerance)
              << CpuIsaName(isa) << " " << width;
        }
      }
    }
  }
}

// Rounding in one place more would show here.
TEST(RmsNorm, Bf16ErrsNoMoreThanTheComposition) {
  at::manual_seed(2);
  for (const NormStyle style : kStyles) {
    const std::vector<at::Tensor> leaves = {RandomLeaf({128, 320}, at::kBFloat16),
                                            RandomLeaf({320}, at::kBFloat16)};
    const at::Tensor grad = at::randn({128, 320}).to(at::kBFloat16);
    const Expected expected = ReferenceOf(leaves[0], leaves[1], grad, style);
    const at::Tensor ours = RmsNorm(leaves[0], leaves[1], kEps, style),
                     theirs = Composition(leaves[0], leaves[1], style);
    EXPECT_LT(RelativeNorm(ours, theirs), 1e-4);  // the sums' order moves a value across a tie
    const auto grads = Gradients(ours, grad, leaves), their_grads = Gradients(theirs, grad, leaves);
    EXPECT_LE(RelativeNorm(ours, expected.y), 2 * RelativeNorm(theirs, expected.y));
    EXPECT_LE(RelativeNorm(grads[0], expected.grad_x),
              2 * RelativeNorm(their_grads[0], expected.grad_x));
    EXPECT_LE(RelativeNorm(grads[1], expected.grad_weight),
              2 * RelativeNorm(their_grads[1], expected.grad_weight));
  }
}

TEST(RmsNorm, GradientsMatchDifferences) {
  at::manual_seed(3);
  for (const NormStyle style : kStyles) {
    ExpectGradientsOfDifferences([&](const auto& v) { return RmsNorm(v[0], v[1], kEps, style); },
                                 {RandomLeaf({3, 5}), RandomLeaf({5})});
    ExpectGradientsOfDifferences(
        [&](const auto& v) { return RmsNormAdd(v[0], v[1], v[2], kEps, style); },
        {RandomLeaf({3, 5}), RandomLeaf({3, 5}), RandomLeaf({5})});
    ExpectGradientsOfDifferences(
        [&](const auto& v) {
          const AddRmsNormOutput out = AddRmsNorm(v[0], v[1], v[2], kEps, style);
          return at::cat({out.sum, out.normed});
        },
        {RandomLeaf({3, 5}), RandomLeaf({3, 5}), RandomLeaf({5})});
  }
}

// The fused forms equal the two operations one after the other: to the bit in bf16, where rounding
// happens between.
TEST(RmsNorm, FusedWithTheResidualEqualsTwoSteps) {
  at::manual_seed(4);
  for (const NormStyle style : kStyles) {
    for (const at::ScalarType dtype : kTypes) {
      const std::vector<at::Tensor> leaves = {
          RandomLeaf({40, 3, 72}, dtype), RandomLeaf({40, 3, 72}, dtype), RandomLeaf({72}, dtype)};
      const at::Tensor sum = leaves[0] + leaves[1];
      const at::Tensor grad = at::randn({2, 40, 3, 72}).to(dtype);
      const AddRmsNormOutput pre = AddRmsNorm(leaves[0], leaves[1], leaves[2], kEps, style);
      const at::Tensor pre_steps = at::stack({sum, RmsNorm(sum, leaves[2], kEps, style)});
      EXPECT_TRUE(SameBits(at::stack({pre.sum, pre.normed}), pre_steps)) << dtype;
      const auto pre_grads = Gradients(at::stack({pre.sum, pre.normed}), grad, leaves),
                 pre_step_grads = Gradients(pre_steps, grad, leaves);

      const at::Tensor post = RmsNormAdd(leaves[0], leaves[1], leaves[2], kEps, style);
      const at::Tensor post_steps = leaves[0] + RmsNorm(leaves[1], leaves[2], kEps, style);
      EXPECT_TRUE(dtype == at::kBFloat16 ? SameBits(post, post_steps)
                                         : Difference(post, post_steps) < 1e-6);
      const auto post_grads = Gradients(post, grad[0], leaves),
                 post_step_grads = Gradients(post_steps, grad[0], leaves);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_LT(RelativeNorm(pre_grads[i], pre_step_grads[i]), Tolerance(dtype)) << i;
        EXPECT_LT(RelativeNorm(post_grads[i], post_step_grads[i]), Tolerance(dtype)) << i;
        EXPECT_GT(pre_grads[i].norm().item<double>(), 1) << i;
        EXPECT_GT(post_grads[i].norm().item<double>(), 1) << i;
      }
    }
  }
}

// A model may use one of the two outputs only.
TEST(AddRmsNorm, EitherOutputAlone) {
  at::manual_seed(5);
  const std::vector<at::Tensor> leaves = {RandomLeaf({6, 8}), RandomLeaf({6, 8}), RandomLeaf({8})};
  const at::Tensor grad = at::randn({6, 8}, at::kDouble);
  const auto of_sum = torch::autograd::grad(
      {AddRmsNorm(leaves[0], leaves[1], leaves[2], kEps, NormStyle::kPlain).sum}, leaves, {grad},
      /*retain_graph=*/{}, /*create_graph=*/false, /*allow_unused=*/true);
  EXPECT_TRUE(at::equal(of_sum[0], grad));
  EXPECT_TRUE(at::equal(of_sum[1], grad));
  const auto of_normed = Gradients(
      AddRmsNorm(leaves[0], leaves[1], leaves[2], kEps, NormStyle::kPlain).normed, grad, leaves);
  const Expected expected = ReferenceOf(leaves[0] + leaves[1], leaves[2], grad, NormStyle::kPlain);
  EXPECT_LT(Difference(of_normed[0], expected.grad_x), 1e-13);
  EXPECT_LT(Difference(of_normed[1], expected.grad_x), 1e-13);
  EXPECT_LT(Difference(of_normed[2], expected.grad_weight), 1e-13);
}

TEST(RmsNorm, AFrozenWeightGetsNoGradient) {
  const at::Tensor x = RandomLeaf({4, 8}), weight = at::randn({8}, at::kDouble);
  const at::Tensor y = RmsNorm(x, weight, kEps, NormStyle::kGemma);
  const at::Tensor grad = at::randn({4, 8}, at::kDouble);
  EXPECT_LT(Difference(Gradients(y, grad, {x})[0],
                       ReferenceOf(x, weight, grad, NormStyle::kGemma).grad_x),
            1e-13);
}

TEST(RmsNorm, StridedInputsAndNoRows) {
  at::manual_seed(6);
  const at::Tensor base = at::randn({12, 20, 5}, at::kDouble), weight = RandomLeaf({12});
  const at::Tensor strided = base.transpose(0, 2), dense = strided.contiguous();
  const auto run = [&](const at::Tensor& x) {
    return std::vector{RmsNorm(x, weight, kEps, NormStyle::kPlain),
                       RmsNormAdd(x, x, weight, kEps, NormStyle::kPlain),
                       AddRmsNorm(x, x, weight, kEps, NormStyle::kPlain).normed};
  };
  const auto a = run(strided), b = run(dense);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(SameBits(a[i], b[i])) << i;
  // A gradient that autograd hands over expanded.
  const at::Tensor x = RandomLeaf({4, 12});
  EXPECT_LT(
      Difference(torch::autograd::grad({RmsNorm(x, weight, kEps, NormStyle::kPlain).sum()}, {x})[0],
                 ReferenceOf(x, weight, at::ones({4, 12}, at::kDouble), NormStyle::kPlain).grad_x),
      1e-13);
  const std::vector<at::Tensor> none = {RandomLeaf({0, 12}), weight};
  const at::Tensor y = RmsNorm(none[0], none[1], kEps, NormStyle::kGemma);
  EXPECT_EQ(y.sizes(), (std::vector<int64_t>{0, 12}));
  const auto grads = Gradients(y, y.detach(), none);
  EXPECT_TRUE(at::equal(grads[1], at::zeros({12}, at::kDouble)));
}

TEST(RmsNorm, BitsDoNotDependOnThreads) {
  at::manual_seed(7);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const std::vector<at::Tensor> leaves = {RandomLeaf({3001, 96}, dtype),
                                            RandomLeaf({3001, 96}, dtype), RandomLeaf({96}, dtype)};
    const at::Tensor grad = at::randn({3001, 96});
    ExpectSameBitsForThreads([&] {
      const AddRmsNormOutput out =
          AddRmsNorm(leaves[0], leaves[1], leaves[2], kEps, NormStyle::kGemma);
      auto results = Gradients(out.normed, grad, leaves);
      results.push_back(out.normed);
      return results;
    });
  }
}

// Activations of Gemma 3 reach 8e5: their squares stay finite because statistics are fp32.
TEST(RmsNormKernel, LargeValuesOnEveryInstructionSet) {
  for (const CpuIsa isa : IsaLevels()) {
    const at::Tensor x = at::full({2, 72}, 8e5, at::kBFloat16);
    const NormOutput out = RmsNormForward(x, at::zeros({72}, at::kBFloat16),
                                          {.eps = 1e-6, .style = NormStyle::kGemma, .isa = isa});
    EXPECT_TRUE(at::equal(out.y, at::ones({2, 72}, at::kBFloat16))) << CpuIsaName(isa);
  }
}

TEST(RmsNorm, RefusesWhatItCannotCompute) {
  const at::Tensor x = at::zeros({2, 8}), w = at::zeros({8});
  EXPECT_THROW(AddRmsNorm(at::zeros({3, 8}), x, w, 1e-6, NormStyle::kPlain), c10::Error);
  EXPECT_THROW(RmsNormAdd(x.to(at::kDouble), x, w, 1e-6, NormStyle::kPlain), c10::Error);
  EXPECT_THROW(RmsNormAdd(x, x, at::zeros({7}), 1e-6, NormStyle::kPlain), c10::Error);
  EXPECT_THROW(RmsNorm(x.to(at::kHalf), w, 1e-6, NormStyle::kPlain), c10::Error);
}

}  // namespace
}  // namespace osler
