// The kernels of ATen's operations, which run where a device has none of its own, against the CPU's
// kernels on the CPU: every family, in fp64 and bf16.
#include <ATen/core/grad_mode.h>

#include <limits>
#include <optional>

#include "kernels/cpu_rows.h"
#include "kernels/interval_attention_aten.h"
#include "kernels/row_kernels.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

using testing::RelativeNorm;

class Aten : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor Random(std::vector<int64_t> shape) const {
    return at::randn(shape, at::kDouble).to(GetParam());
  }
  at::ScalarType sums() const { return GetParam() == at::kDouble ? at::kDouble : at::kFloat; }
  // Sums in another order differ by their last bits, and bf16 by what that rounds to.
  double limit() const { return GetParam() == at::kDouble ? 1e-12 : 4e-3; }
  void ExpectSame(const at::Tensor& a, const at::Tensor& b) const {
    ASSERT_EQ(a.sizes(), b.sizes());
    ASSERT_EQ(a.scalar_type(), b.scalar_type());
    EXPECT_LE(RelativeNorm(a, b), limit());
  }
  const at::NoGradGuard no_grad_;
  const RowKernels& aten_ = AtenRowKernels();
};

INSTANTIATE_TEST_SUITE_P(Types, Aten, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16));

TEST_P(Aten, NormsAreTheCpus) {
  const at::Tensor x = Random({7, 24}), residual = Random({7, 24}), weight = Random({24}),
                   grad = Random({7, 24});
  for (const NormStyle style : {NormStyle::kGemma, NormStyle::kPlain}) {
    const NormOptions norm{.eps = 1e-6, .style = style};
    const NormOutput a = aten_.norms.rms_norm(x, weight, norm), b = RmsNormForward(x, weight, norm);
    ExpectSame(a.y, b.y);
    ExpectSame(a.inverse_rms, b.inverse_rms);
    const NormOutput c = aten_.norms.add_rms_norm(residual, x, weight, norm),
                     d = AddRmsNormForward(residual, x, weight, norm);
    ExpectSame(c.y, d.y);
    ExpectSame(c.sum, d.sum);
    ExpectSame(aten_.norms.rms_norm_add(residual, x, weight, norm).y,
               RmsNormAddForward(residual, x, weight, norm).y);
    for (const at::Tensor& grad_sum : {at::Tensor(), residual}) {
      const NormInputs inputs{x, weight, b.inverse_rms};
      const NormGradients e = aten_.norms.rms_norm_backward(grad, grad_sum, inputs,
                                                            WeightGradient::kWanted, norm),
                          f = RmsNormBackward(grad, grad_sum, inputs, WeightGradient::kWanted,
                                              norm);
      ExpectSame(e.x, f.x);
      ExpectSame(e.weight_D, f.weight_D);
    }
  }
}

TEST_P(Aten, RotationsAreTheCpus) {
  const at::Tensor x = Random({6, 3, 16}), weight = Random({16}), grad = Random({6, 3, 16});
  const RopeTables tables =
      MakeRopeTables(at::arange(3, 9, at::kLong), 16, {.theta = 100, .factor = 2});
  ExpectSame(aten_.norms.rope(x, tables), RopeForwardCpu(x, tables));
  ExpectSame(aten_.norms.rope_backward(x, tables), RopeBackwardCpu(x, tables));
  for (const NormStyle style : {NormStyle::kGemma, NormStyle::kPlain}) {
    const NormOptions norm{.eps = 1e-6, .style = style};
    const NormOutput a = aten_.norms.norm_rope(x, weight, tables, norm),
                     b = NormRopeForwardCpu(x, weight, tables, norm);
    ExpectSame(a.y, b.y);
    ExpectSame(a.inverse_rms, b.inverse_rms.flatten());
    const NormInputs inputs{x, weight, b.inverse_rms};
    const NormGradients c = aten_.norms.norm_rope_backward(grad, inputs, tables,
                                                           WeightGradient::kWanted, norm),
                        d = NormRopeBackwardCpu(grad, inputs, tables, WeightGradient::kWanted,
                                                norm);
    ExpectSame(c.x, d.x);
    ExpectSame(c.weight_D, d.weight_D);
  }
}

TEST_P(Aten, GatesAreTheCpus) {
  const at::Tensor gate = Random({5, 20}), up = Random({5, 20}), grad = Random({5, 20});
  for (const GateKind kind : {GateKind::kGeluTanh, GateKind::kSilu}) {
    ExpectSame(aten_.gated(gate, up, kind), GatedActivationForwardCpu(gate, up, kind));
    const GatedGradients a = aten_.gated_backward(grad, gate, up, kind),
                         b = GatedActivationBackwardCpu(grad, gate, up, kind);
    ExpectSame(a.gate_TF, b.gate_TF);
    ExpectSame(a.up_TF, b.up_TF);
  }
}

TEST_P(Aten, CrossEntropyIsTheCpus) {
  const at::Tensor logits = Random({6, 40}).mul_(3);
  const at::Tensor targets = at::tensor(std::vector<int64_t>{3, -100, 52, 17, 10, 49});
  for (const double soft_cap : {0.0, 4.0}) {
    const CrossEntropyOptions options{.begin = 10, .soft_cap = soft_cap, .gradient_scale = 0.5};
    const SoftmaxTerms a = aten_.cross_entropy_terms(logits, targets, options),
                       b = CrossEntropyTermsCpu(logits, targets, options);
    const at::Tensor counted = at::ge(targets, 0);
    const auto kept = [&](const at::Tensor& x) { return x.masked_select(counted); };
    ExpectSame(kept(a.max_T), kept(b.max_T));
    ExpectSame(kept(a.sum_T), kept(b.sum_T));
    ExpectSame(kept(a.target_T), kept(b.target_T));
    const at::Tensor mine = logits.clone(), theirs = logits.clone();
    aten_.cross_entropy_gradient(mine, targets, b, options);
    CrossEntropyGradientCpu(theirs, targets, b, options);
    ExpectSame(mine, theirs);
  }
}

struct AttentionCase {
  int64_t queries, keys, heads, key_heads, width;
  std::optional<double> soft_cap;
};

TEST_P(Aten, AttentionIsTheCpus) {
  for (const AttentionCase& c :
       {AttentionCase{37, 37, 4, 2, 16, std::nullopt}, AttentionCase{20, 33, 3, 1, 8, 5.0}}) {
    std::vector<int32_t> lo, hi;
    for (int64_t i = 0; i < c.queries; ++i) {
      hi.push_back(static_cast<int32_t>(std::min(c.keys, i + 1)));
      lo.push_back(static_cast<int32_t>(i < 5 ? 0 : i < 9 ? hi.back() : std::min(hi.back(), 9)));
    }
    const IntervalAttentionInput input{Random({c.queries, c.heads, c.width}),
                                       Random({c.keys, c.key_heads, c.width}),
                                       Random({c.keys, c.key_heads, c.width}),
                                       {at::tensor(lo, at::kInt), at::tensor(hi, at::kInt)},
                                       {.scale = 0.3, .soft_cap = c.soft_cap}};
    const AttentionOutput grad{Random({c.queries, c.heads, c.width}),
                               at::randn({c.queries, c.heads}, sums())};
    const AttentionOutput want = IntervalAttentionPartCpu(input, BestCpuIsa());
    const AttentionOutput rounded{want.out_THD.to(GetParam()), want.lse_TH};
    const IntervalAttentionGradients right =
        IntervalAttentionGradientSumsCpu(grad, input, rounded, BestCpuIsa());
    for (const AtenProducts products : {AtenProducts::kNarrow, AtenProducts::kWide}) {
      const AttentionOutput found = IntervalAttentionForwardAten(input, sums(), products);
      ExpectSame(found.out_THD, want.out_THD);
      const double lowest = -std::numeric_limits<double>::infinity();
      EXPECT_TRUE(at::equal(found.lse_TH.eq(lowest), want.lse_TH.eq(lowest)));
      ExpectSame(found.lse_TH.nan_to_num(), want.lse_TH.nan_to_num());
      const IntervalAttentionGradients gradients =
          IntervalAttentionBackwardAten(grad, input, rounded, sums(), products);
      ExpectSame(gradients.q_THD, right.q_THD);
      ExpectSame(gradients.k_SHD, right.k_SHD);
      ExpectSame(gradients.v_SHD, right.v_SHD);
      EXPECT_EQ(gradients.q_THD.narrow(0, 5, 4).abs().max().item<double>(), 0);
    }
  }
}

}  // namespace
}  // namespace osler
