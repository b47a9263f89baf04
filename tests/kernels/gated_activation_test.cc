#include "kernels/gated_activation.h"

#include <cmath>

#include "kernels/gated_activation_cpu.h"
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

const GateKind kKinds[] = {GateKind::kGeluTanh, GateKind::kSilu};

double Tolerance(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 1e-5 : 2e-2;
}

// From the definitions, with elementary functions.
at::Tensor Reference(const at::Tensor& gate, const at::Tensor& up, GateKind kind) {
  if (kind == GateKind::kSilu) return gate / (1 + (-gate).exp()) * up;
  const at::Tensor inner = (gate + gate.pow(3) * 0.044715) * std::sqrt(2 / M_PI);
  return gate * 0.5 * (1 + inner.tanh()) * up;
}

at::Tensor Composition(const at::Tensor& gate, const at::Tensor& up, GateKind kind) {
  return (kind == GateKind::kSilu ? at::silu(gate) : at::gelu(gate, "tanh")) * up;
}

TEST(GatedActivationKernel, EveryInstructionSetAndWidth) {
  at::manual_seed(1);
  for (const CpuIsa isa : IsaLevels()) {
    for (const int64_t width : {1, 7, 16, 17, 33, 100, 257}) {
      for (const GateKind kind : kKinds) {
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
          const at::Tensor gate = (at::randn({5, width}, at::kDouble) * 3).to(dtype),
                           up = at::randn({5, width}, at::kDouble).to(dtype),
                           grad = at::randn({5, width}, at::kDouble).to(dtype);
          const std::vector<at::Tensor> wide = {WideLeaf(gate), WideLeaf(up)};
          const at::Tensor expected = Reference(wide[0], wide[1], kind);
          const auto expected_grads = Gradients(expected, grad.to(at::kDouble), wide);
          const GatedGradients grads = GatedActivationBackwardCpu(grad, gate, up, kind, isa);
          const double tolerance = Tolerance(dtype);
          EXPECT_LT(Difference(GatedActivationForwardCpu(gate, up, kind, isa), expected), tolerance)
              << CpuIsaName(isa) << " " << width;
          EXPECT_LT(Difference(grads.gate_TF, expected_grads[0]), tolerance) << CpuIsaName(isa);
          EXPECT_LT(Difference(grads.up_TF, expected_grads[1]), tolerance) << CpuIsaName(isa);
        }
      }
    }
  }
}

// Every fp32 gate that a model may meet, and far beyond: relative errors, the tails too.
TEST(GatedActivationKernel, AccurateInTheTails) {
  const at::Tensor gate = at::linspace(-30, 30, 100001), up = at::ones_like(gate);
  const at::Tensor wide = gate.to(at::kDouble);
  for (const CpuIsa isa : IsaLevels()) {
    const at::Tensor silu =
        GatedActivationForwardCpu(gate.view({1, -1}), up.view({1, -1}), GateKind::kSilu, isa)[0];
    const at::Tensor exact = wide / (1 + (-wide).exp());
    EXPECT_LT(((silu.to(at::kDouble) - exact) / (exact + (exact == 0))).abs().max().item<double>(),
              1e-6)
        << CpuIsaName(isa);
  }
  const at::Tensor extremes = at::tensor({-1e30F, -1e4F, -100.0F, 0.0F, 100.0F, 1e4F, 1e8F});
  for (const GateKind kind : kKinds) {
    const at::Tensor y = GatedActivation(extremes, at::ones_like(extremes), kind);
    EXPECT_TRUE(at::allclose(y, extremes.clamp_min(0), 1e-6, 1e-6)) << y;
  }
  const at::Tensor nan = GatedActivation(at::tensor({NAN, 1.0F}), at::ones({2}), GateKind::kSilu);
  EXPECT_TRUE(std::isnan(nan[0].item<float>()));
  EXPECT_FALSE(std::isnan(nan[1].item<float>()));
}

TEST(GatedActivation, Bf16ErrsNoMoreThanTheComposition) {
  at::manual_seed(2);
  for (const GateKind kind : kKinds) {
    const std::vector<at::Tensor> leaves = {RandomLeaf({64, 200}, at::kBFloat16),
                                            RandomLeaf({64, 200}, at::kBFloat16)};
    const std::vector<at::Tensor> wide = {WideLeaf(leaves[0]), WideLeaf(leaves[1])};
    const at::Tensor grad = at::randn({64, 200}).to(at::kBFloat16);
    const at::Tensor ours = GatedActivation(leaves[0], leaves[1], kind),
                     theirs = Composition(leaves[0], leaves[1], kind),
                     exact = Reference(wide[0], wide[1], kind);
    EXPECT_LT(RelativeNorm(ours, theirs), 1e-4);  // rounded at the same places
    EXPECT_LE(RelativeNorm(ours, exact), 2 * RelativeNorm(theirs, exact));
    const auto a = Gradients(ours, grad, leaves), b = Gradients(theirs, grad, leaves),
               c = Gradients(exact, grad, wide);
    for (size_t i = 0; i < 2; ++i)
      EXPECT_LE(RelativeNorm(a[i], c[i]), 2 * RelativeNorm(b[i], c[i])) << i;
  }
}

TEST(GatedActivation, GradientsMatchDifferences) {
  at::manual_seed(3);
  for (const GateKind kind : kKinds) {
    ExpectGradientsOfDifferences([&](const auto& v) { return GatedActivation(v[0], v[1], kind); },
                                 {RandomLeaf({4, 2, 5}), RandomLeaf({4, 2, 5})});
  }
}

// The halves of one joined projection, transposed values, and nothing.
TEST(GatedActivation, StridedInputsAndNoRows) {
  at::manual_seed(4);
  const at::Tensor joined = RandomLeaf({9, 2 * 40}, at::kFloat);
  const at::Tensor grad = at::randn({9, 40});
  const at::Tensor y =
      GatedActivation(joined.narrow(1, 0, 40), joined.narrow(1, 40, 40), GateKind::kSilu);
  const std::vector<at::Tensor> dense = {
      joined.detach().narrow(1, 0, 40).contiguous().requires_grad_(true),
      joined.detach().narrow(1, 40, 40).contiguous().requires_grad_(true)};
  const at::Tensor z = GatedActivation(dense[0], dense[1], GateKind::kSilu);
  EXPECT_TRUE(SameBits(y, z));
  EXPECT_TRUE(SameBits(Gradients(y, grad, {joined})[0], at::cat(Gradients(z, grad, dense), 1)));
  EXPECT_TRUE(SameBits(GatedActivation(grad.t(), grad.t(), GateKind::kGeluTanh),
                       GatedActivation(grad, grad, GateKind::kGeluTanh).t()));
  EXPECT_EQ(GatedActivation(at::zeros({0, 8}), at::zeros({0, 8}), GateKind::kSilu).sizes(),
            (std::vector<int64_t>{0, 8}));
}

TEST(GatedActivation, BitsDoNotDependOnThreads) {
  at::manual_seed(5);
  const std::vector<at::Tensor> leaves = {RandomLeaf({300, 1001}, at::kBFloat16),
                                          RandomLeaf({300, 1001}, at::kBFloat16)};
  const at::Tensor grad = at::randn({300, 1001});
  ExpectSameBitsForThreads([&] {
    const at::Tensor y = GatedActivation(leaves[0], leaves[1], GateKind::kGeluTanh);
    auto results = Gradients(y, grad, leaves);
    results.push_back(y);
    return results;
  });
}

TEST(GatedActivation, RefusesWhatItCannotCompute) {
  EXPECT_THROW(GatedActivation(at::zeros({2, 4}), at::zeros({2, 5}), GateKind::kSilu), c10::Error);
  EXPECT_THROW(GatedActivation(at::zeros({4}), at::zeros({4}, at::kDouble), GateKind::kSilu),
               c10::Error);
  EXPECT_THROW(
      GatedActivation(at::zeros({4}, at::kHalf), at::zeros({4}, at::kHalf), GateKind::kSilu),
      c10::Error);
}

}  // namespace
}  // namespace osler
