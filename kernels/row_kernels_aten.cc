#include "kernels/row_kernels.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sub.h>

#include <vector>

#include "kernels/cpu_rows.h"

namespace osler {
namespace {

at::Tensor Wide(const at::Tensor& x) { return x.to(SumTypeOf(x)); }

// Rounded to the values' type and widened again.
at::Tensor Rounded(const at::Tensor& wide, const at::Tensor& like) {
  return wide.to(like.scalar_type()).to(wide.scalar_type());
}

// A number a row, [rows], beside values [..., D].
at::Tensor Beside(const at::Tensor& numbers, const at::Tensor& x) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = 1;
  return numbers.view(sizes);
}

// What multiplies the gain.
at::Tensor Normalised(const at::Tensor& x, const at::Tensor& inverse_rms, NormStyle style) {
  const at::Tensor normed = at::mul(Wide(x), Beside(inverse_rms, x));
  return style == NormStyle::kGemma ? normed : Rounded(normed, x);
}

struct Normed {
  at::Tensor y;  // in the type of sums
  at::Tensor inverse_rms;
};

Normed Norm(const at::Tensor& x, const at::Tensor& weight_D, const NormOptions& norm) {
  const at::Tensor inverse_rms = at::rsqrt(Wide(x).square().mean(-1).add_(norm.eps)).flatten();
  return {Normalised(x, inverse_rms, norm.style).mul_(Gain(weight_D, norm.style, x)), inverse_rms};
}

// grad and the results in the type of sums; grad_sum may be undefined.
NormGradients NormBackward(const at::Tensor& grad, const at::Tensor& grad_sum, const NormInputs& in,
                           WeightGradient weight_gradient, NormStyle style) {
  const at::Tensor x = Wide(in.x), r = Beside(in.inverse_rms, in.x);
  const at::Tensor d = at::mul(grad, Gain(in.weight_D, style, in.x));
  const at::Tensor c = at::mul(d, x).mean(-1, /*keepdim=*/true).mul_(r.pow(3));
  NormGradients out{at::mul(d, r).sub_(at::mul(x, c)), {}};
  if (grad_sum.defined()) out.x.add_(grad_sum);
  out.x = out.x.to(in.x.scalar_type());
  if (weight_gradient == WeightGradient::kWanted) {
    out.weight_D = at::mul(grad, Normalised(in.x, in.inverse_rms, style))
                       .reshape({-1, in.x.size(-1)})
                       .sum(0)
                       .to(in.weight_D.scalar_type());
  }
  return out;
}

struct Turn {
  at::Tensor cos, sin;  // [T, 1, D / 2], rounded to the values' type
};

Turn TurnOf(const RopeTables& tables, const at::Tensor& x_THD) {
  const auto half = [&](const at::Tensor& table_TD) {
    const at::Tensor first = table_TD.narrow(1, 0, table_TD.size(1) / 2).unsqueeze(1);
    return Rounded(first.to(SumTypeOf(x_THD)), x_THD);
  };
  return {half(tables.cos_TD), half(tables.sin_TD)};
}

// x·cos + rotate_half(x)·sin with each product rounded to `like`'s type.
at::Tensor Turned(const at::Tensor& wide_THD, const Turn& turn, const at::Tensor& like) {
  const std::vector<at::Tensor> halves = wide_THD.chunk(2, -1);
  const auto product = [&](const at::Tensor& a, const at::Tensor& b) {
    return Rounded(at::mul(a, b), like);
  };
  return at::cat({product(halves[0], turn.cos).sub_(product(halves[1], turn.sin)),
                  product(halves[1], turn.cos).add_(product(halves[0], turn.sin))},
                 -1);
}

constexpr double kGeluScale = 1.5957691216057308;  // 2 √(2/π)
constexpr double kGeluCubic = 0.044715;

// σ(u(x)), where the activation is x·σ(u(x)).
at::Tensor Share(const at::Tensor& x, GateKind kind) {
  if (kind == GateKind::kSilu) return at::sigmoid(x);
  return at::mul(x, x.square().mul_(kGeluScale * kGeluCubic).add_(kGeluScale)).sigmoid_();
}

// u'(x)
at::Tensor Slope(const at::Tensor& x, GateKind kind) {
  if (kind == GateKind::kSilu) return at::ones_like(x);
  return x.square().mul_(3 * kGeluScale * kGeluCubic).add_(kGeluScale);
}

// The logits' values, capped where that is asked for, in the type of sums.
at::Tensor Capped(const at::Tensor& logits_CV, double soft_cap) {
  const at::Tensor z = Wide(logits_CV);
  return soft_cap == 0 ? z : z.div(soft_cap).tanh_().mul_(soft_cap);
}

// Each row's target as a column of this slice, [C, 1], and whether it is one.
struct Columns {
  at::Tensor column_C1, here_C1;
};
Columns ColumnsOf(const at::Tensor& targets_C, int64_t begin, int64_t width) {
  const at::Tensor column = at::sub(targets_C, begin).unsqueeze(1);
  return {at::clamp(column, 0, width - 1), column.ge(0).logical_and_(column.lt(width))};
}

NormOutput RmsNormForwardAten(const at::Tensor& x, const at::Tensor& weight_D,
                              const NormOptions& norm) {
  const Normed normed = Norm(x, weight_D, norm);
  return {normed.y.to(x.scalar_type()), normed.inverse_rms, {}};
}

NormOutput AddRmsNormForwardAten(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm) {
  const at::Tensor sum = at::add(residual, x);
  NormOutput out = RmsNormForwardAten(sum, weight_D, norm);
  out.sum = sum;
  return out;
}

NormOutput RmsNormAddForwardAten(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm) {
  NormOutput out = RmsNormForwardAten(x, weight_D, norm);
  out.y = at::add(residual, out.y);
  return out;
}

NormGradients RmsNormBackwardAten(const at::Tensor& grad, const at::Tensor& grad_sum,
                                  const NormInputs& inputs, WeightGradient weight_gradient,
                                  const NormOptions& norm) {
  return NormBackward(Wide(grad), grad_sum, inputs, weight_gradient, norm.style);
}

at::Tensor RopeForwardAten(const at::Tensor& x_THD, const RopeTables& tables) {
  return Turned(Wide(x_THD), TurnOf(tables, x_THD), x_THD).to(x_THD.scalar_type());
}

at::Tensor RopeBackwardAten(const at::Tensor& grad_THD, const RopeTables& tables) {
  const Turn turn = TurnOf(tables, grad_THD);
  return Turned(Wide(grad_THD), {turn.cos, turn.sin.neg()}, grad_THD).to(grad_THD.scalar_type());
}

NormOutput NormRopeForwardAten(const at::Tensor& x_THD, const at::Tensor& weight_D,
                               const RopeTables& tables, const NormOptions& norm) {
  const Normed normed = Norm(x_THD, weight_D, norm);
  return {Turned(Rounded(normed.y, x_THD), TurnOf(tables, x_THD), x_THD).to(x_THD.scalar_type()),
          normed.inverse_rms,
          {}};
}

NormGradients NormRopeBackwardAten(const at::Tensor& grad_THD, const NormInputs& inputs,
                                   const RopeTables& tables, WeightGradient weight_gradient,
                                   const NormOptions& norm) {
  const Turn turn = TurnOf(tables, grad_THD);
  const at::Tensor wide = Wide(grad_THD);
  const at::Tensor turned_back = Turned(wide, {turn.cos, turn.sin.neg()}, wide);
  return NormBackward(turned_back, {}, inputs, weight_gradient, norm.style);
}

at::Tensor GatedActivationForwardAten(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                      GateKind kind) {
  const at::Tensor x = Wide(gate_TF);
  return Rounded(Share(x, kind).mul_(x), gate_TF).mul_(Wide(up_TF)).to(gate_TF.scalar_type());
}

GatedGradients GatedActivationBackwardAten(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                           const at::Tensor& up_TF, GateKind kind) {
  const at::Tensor x = Wide(gate_TF), grad = Wide(grad_TF), share = Share(x, kind);
  const at::Tensor slope = at::sub(share, share.square()).mul_(x).mul_(Slope(x, kind)).add_(share);
  const at::ScalarType type = gate_TF.scalar_type();
  return {slope.mul(grad).mul_(Wide(up_TF)).to(type),
          Rounded(at::mul(x, share), gate_TF).mul_(grad).to(type)};
}

SoftmaxTerms CrossEntropyTermsAten(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                                   const CrossEntropyOptions& options) {
  const at::Tensor z = Capped(logits_CV, options.soft_cap);
  const at::Tensor max_C1 = z.amax(1, /*keepdim=*/true);
  const Columns target = ColumnsOf(targets_C, options.begin, logits_CV.size(1));
  const at::Tensor at_target = at::gather(z, 1, target.column_C1);
  return {max_C1.squeeze(1), at::sub(z, max_C1).exp_().sum(1),
          at_target.masked_fill(target.here_C1.logical_not(), 0).squeeze(1)};
}

void CrossEntropyGradientAten(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                              const SoftmaxTerms& whole, const CrossEntropyOptions& options) {
  const at::Tensor z = Capped(logits_CV, options.soft_cap);
  const Columns target = ColumnsOf(targets_C, options.begin, logits_CV.size(1));
  const at::Tensor none_C1 = targets_C.lt(0).unsqueeze(1);
  at::Tensor slope;
  if (options.soft_cap != 0) slope = z.div(options.soft_cap).square_().neg_().add_(1);
  at::Tensor grad = at::sub(z, whole.max_T.unsqueeze(1)).exp_().div_(whole.sum_T.unsqueeze(1));
  const at::Tensor share = at::gather(grad, 1, target.column_C1);
  grad.scatter_(1, target.column_C1, at::sub(share, target.here_C1.to(share.scalar_type())));
  if (slope.defined()) grad.mul_(slope);
  grad.mul_(options.gradient_scale).masked_fill_(none_C1, 0);
  logits_CV.copy_(grad);
}

SoftmaxTerms CrossEntropyAten(const at::Tensor& logits_CV, const at::Tensor& targets_C,
                              const CrossEntropyOptions& options) {
  SoftmaxTerms terms = CrossEntropyTermsAten(logits_CV, targets_C, options);
  CrossEntropyGradientAten(logits_CV, targets_C, terms, options);
  return terms;
}

constexpr RowKernels kAten = {.norms = {.rms_norm = RmsNormForwardAten,
                                        .add_rms_norm = AddRmsNormForwardAten,
                                        .rms_norm_add = RmsNormAddForwardAten,
                                        .rms_norm_backward = RmsNormBackwardAten,
                                        .rope = RopeForwardAten,
                                        .rope_backward = RopeBackwardAten,
                                        .norm_rope = NormRopeForwardAten,
                                        .norm_rope_backward = NormRopeBackwardAten},
                              .gated = GatedActivationForwardAten,
                              .gated_backward = GatedActivationBackwardAten,
                              .cross_entropy_terms = CrossEntropyTermsAten,
                              .cross_entropy_gradient = CrossEntropyGradientAten,
                              .cross_entropy = CrossEntropyAten};

}  // namespace

const RowKernels& AtenRowKernels() { return kAten; }

}  // namespace osler
