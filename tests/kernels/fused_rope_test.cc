#include "kernels/norm_rope.h"
#include "kernels/norm_rope_cpu.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
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
  return dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 1e-5 : 2e-2;
}

// x·cos + rotate_half(x)·sin, one ATen operation after another, in x's dtype: transformers'
// apply_rotary_pos_emb.
at::Tensor Turned(const at::Tensor& x, const RopeTables& tables) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor cos = tables.cos_TD.to(x.scalar_type()).unsqueeze(1),
                   sin = tables.sin_TD.to(x.scalar_type()).unsqueeze(1);
  const at::Tensor turned = at::cat({-x.narrow(2, half, half), x.narrow(2, 0, half)}, 2);
  return x * cos + turned * sin;
}

at::Tensor Normed(const at::Tensor& x, const at::Tensor& weight, NormStyle style) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const at::Tensor normal = wide / (wide.pow(2).mean(-1, true) + kEps).sqrt();
  if (style == NormStyle::kPlain) return weight * normal.to(x.scalar_type());
  return (normal * (weight.to(wide.scalar_type()) + 1)).to(x.scalar_type());
}

RopeTables Tables(int64_t length, int64_t width) {
  return MakeRopeTables(at::arange(length) * 3 + 1, width, {.theta = 1e4});
}

// The reference's rounding to the bit, forward and backward.
TEST(Rope, Bf16EqualsTheCompositionToTheBit) {
  at::manual_seed(1);
  for (const int64_t width : {2, 14, 16, 64, 72, 80, 96, 128, 250, 256}) {
    const at::Tensor x = RandomLeaf({17, 3, width}, at::kBFloat16);
    const at::Tensor grad = at::randn({17, 3, width});
    const RopeTables tables = Tables(17, width);
    const at::Tensor ours = ApplyRope(x, tables), theirs = Turned(x, tables);
    EXPECT_TRUE(SameBits(ours, theirs)) << width;
    EXPECT_TRUE(SameBits(Gradients(ours, grad, {x})[0], Gradients(theirs, grad, {x})[0])) << width;
  }
}

TEST(RopeKernel, EveryInstructionSetAndWidth) {
  at::manual_seed(2);
  for (const CpuIsa isa : IsaLevels()) {
    for (const int64_t width : {2, 6, 14, 30, 32, 34, 72, 128, 250}) {
      const RopeTables tables = Tables(9, width);
      for (const at::ScalarType dtype : kTypes) {
        const at::Tensor x = RandomLeaf({9, 3, width}, dtype), wide = WideLeaf(x);
        const at::Tensor grad = at::randn({9, 3, width}).to(dtype);
        const at::Tensor expected = Turned(wide, tables);
        EXPECT_LT(Difference(RopeForwardCpu(x.detach(), tables, isa), expected), Tolerance(dtype))
            << CpuIsaName(isa) << " " << width;
        EXPECT_LT(
            Difference(RopeBackwardCpu(grad, tables, isa), Gradients(expected, grad, {wide})[0]),
            Tolerance(dtype))
            << CpuIsaName(isa) << " " << width;
      }
    }
  }
}

TEST(NormRopeKernel, EveryInstructionSetAndWidth) {
  at::manual_seed(3);
  for (const CpuIsa isa : IsaLevels()) {
    for (const int64_t width : {2, 6, 14, 30, 32, 34, 72, 128, 250}) {
      const RopeTables tables = Tables(19, width);
      for (const NormStyle style : kStyles) {
        for (const at::ScalarType dtype : kTypes) {
          const at::Tensor x = RandomLeaf({19, 3, width}, dtype), w = RandomLeaf({width}, dtype);
          const at::Tensor wide = WideLeaf(x), wide_w = WideLeaf(w);
          const at::Tensor grad = at::randn({19, 3, width}).to(dtype);
          const at::Tensor expected = Turned(Normed(wide, wide_w, style), tables);
          const auto expected_grads = Gradients(expected, grad, {wide, wide_w});
          const NormOptions norm{.eps = kEps, .style = style, .isa = isa};
          const NormOutput out = NormRopeForwardCpu(x.detach(), w.detach(), tables, norm);
          const NormGradients grads =
              NormRopeBackwardCpu(grad, {x.detach(), w.detach(), out.inverse_rms}, tables,
                                  WeightGradient::kWanted, norm);
          EXPECT_LT(Difference(out.y, expected), Tolerance(dtype)) << CpuIsaName(isa) << width;
          EXPECT_LT(Difference(grads.x, expected_grads[0]), Tolerance(dtype))
              << CpuIsaName(isa) << " " << width;
          EXPECT_LT(Difference(grads.weight_D, expected_grads[1]), Tolerance(dtype))
              << CpuIsaName(isa) << " " << width;
        }
      }
    }
  }
}

TEST(NormRope, EqualsTheTwoStepsAndErrsNoMoreThanAten) {
  at::manual_seed(4);
  for (const NormStyle style : kStyles) {
    const std::vector<at::Tensor> leaves = {RandomLeaf({64, 4, 128}, at::kBFloat16),
                                            RandomLeaf({128}, at::kBFloat16)};
    const std::vector<at::Tensor> wide = {WideLeaf(leaves[0]), WideLeaf(leaves[1])};
    const RopeTables tables = Tables(64, 128);
    const at::Tensor grad = at::randn({64, 4, 128}).to(at::kBFloat16);
    const at::Tensor ours = NormRope(leaves[0], leaves[1], kEps, style, tables);
    EXPECT_TRUE(SameBits(ours, ApplyRope(RmsNorm(leaves[0], leaves[1], kEps, style), tables)));
    const at::Tensor theirs = Turned(Normed(leaves[0], leaves[1], style), tables),
                     exact = Turned(Normed(wide[0], wide[1], style), tables);
    EXPECT_LE(RelativeNorm(ours, exact), 2 * RelativeNorm(theirs, exact));
    const auto our_grads = Gradients(ours, grad, leaves),
               their_grads = Gradients(theirs, grad, leaves),
               exact_grads = Gradients(exact, grad, wide);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_LE(RelativeNorm(our_grads[i], exact_grads[i]),
                2 * RelativeNorm(their_grads[i], exact_grads[i]))
          << i;
    }
  }
}

TEST(NormRope, GradientsMatchDifferences) {
  at::manual_seed(5);
  const RopeTables tables = Tables(3, 6);
  for (const NormStyle style : kStyles) {
    ExpectGradientsOfDifferences(
        [&](const auto& v) { return NormRope(v[0], v[1], kEps, style, tables); },
        {RandomLeaf({3, 2, 6}), RandomLeaf({6})});
  }
  ExpectGradientsOfDifferences([&](const auto& v) { return ApplyRope(v[0], tables); },
                               {RandomLeaf({3, 2, 6})});
}

// Heads cut from one projection of queries, keys and values; a gradient with the heads first; no
// token at all.
TEST(NormRope, StridedInputsAndNoTokens) {
  at::manual_seed(6);
  const at::Tensor joined = at::randn({11, 8 * 24}), weight = RandomLeaf({24}, at::kFloat);
  const at::Tensor strided = joined.narrow(1, 48, 96).view({11, 4, 24});
  const at::Tensor crossed = at::randn({11, 24, 4}).transpose(1, 2);
  const RopeTables tables = Tables(11, 24);
  ASSERT_FALSE(strided.is_contiguous());
  for (const at::Tensor& view : {strided, crossed}) {
    const at::Tensor dense = view.contiguous();
    EXPECT_TRUE(SameBits(ApplyRope(view, tables), ApplyRope(dense, tables)));
    const at::Tensor a = view.detach().requires_grad_(true), b = dense.requires_grad_(true);
    const at::Tensor grad = at::randn({4, 11, 24}).transpose(0, 1);
    const at::Tensor y = NormRope(a, weight, kEps, NormStyle::kPlain, tables),
                     z = NormRope(b, weight, kEps, NormStyle::kPlain, tables);
    EXPECT_TRUE(SameBits(y, z));
    const auto grads = Gradients(y, grad, {a, weight}),
               expected = Gradients(z, grad.contiguous(), {b, weight});
    EXPECT_TRUE(SameBits(grads[0], expected[0]));
    EXPECT_TRUE(SameBits(grads[1], expected[1]));
  }
  const at::Tensor none = RandomLeaf({0, 4, 24}, at::kFloat);
  const at::Tensor y = NormRope(none, weight, kEps, NormStyle::kGemma, Tables(0, 24));
  EXPECT_EQ(y.sizes(), none.sizes());
  EXPECT_TRUE(at::equal(Gradients(y, y.detach(), {weight})[0], at::zeros({24})));
}

TEST(NormRope, BitsDoNotDependOnThreads) {
  at::manual_seed(7);
  const RopeTables tables = Tables(1500, 64);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const std::vector<at::Tensor> leaves = {RandomLeaf({1500, 2, 64}, dtype),
                                            RandomLeaf({64}, dtype)};
    const at::Tensor grad = at::randn({1500, 2, 64});
    ExpectSameBitsForThreads([&] {
      const at::Tensor y = NormRope(leaves[0], leaves[1], kEps, NormStyle::kGemma, tables);
      auto results = Gradients(y, grad, leaves);
      results.push_back(y);
      results.push_back(Gradients(ApplyRope(leaves[0], tables), grad, {leaves[0]})[0]);
      return results;
    });
  }
}

TEST(NormRope, RefusesWhatItCannotCompute) {
  const RopeTables tables = Tables(4, 8);
  const at::Tensor x = at::zeros({4, 2, 8}), w = at::zeros({8});
  const auto norm = [&](const at::Tensor& x, const at::Tensor& w, const RopeTables& tables) {
    return NormRope(x, w, kEps, NormStyle::kPlain, tables);
  };
  EXPECT_NO_THROW(norm(x, w, tables));
  EXPECT_THROW(norm(x, at::zeros({4}), tables), c10::Error);
  EXPECT_THROW(norm(at::zeros({5, 2, 8}), w, tables), c10::Error);
  EXPECT_THROW(norm(x.to(at::kHalf), w, tables), c10::Error);
  EXPECT_THROW(norm(x, w, {tables.cos_TD.to(at::kDouble), tables.sin_TD}), c10::Error);
}

}  // namespace
}  // namespace osler
