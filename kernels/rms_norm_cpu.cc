#include "kernels/rms_norm_cpu.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/square.h>

namespace osler {
namespace {

at::ScalarType StatisticsType(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// What the normalised value is multiplied by, in the statistics' dtype.
at::Tensor Gain(const at::Tensor& weight_D, NormStyle style, at::ScalarType dtype) {
  const at::Tensor weight = weight_D.to(dtype);
  return style == NormStyle::kGemma ? at::add(weight, 1) : weight;
}

}  // namespace

RmsNormOutput RmsNormForward(const at::Tensor& x, const at::Tensor& weight_D, double eps,
                             NormStyle style) {
  const at::ScalarType dtype = StatisticsType(x);
  const at::Tensor wide = x.to(dtype);
  const at::Tensor inverse_rms =
      at::mean(at::square(wide), /*dim=*/-1, /*keepdim=*/true).add_(eps).rsqrt_();
  at::Tensor y = at::mul(wide, inverse_rms);
  if (style == NormStyle::kGemma)
    return {y.mul_(Gain(weight_D, style, dtype)).to(x.scalar_type()), inverse_rms};
  return {y.to(x.scalar_type()).mul_(weight_D), inverse_rms};
}

// With n = x·r and g the gradient of n: ∂x = r (g − n mean(g n)).
RmsNormGradients RmsNormBackward(const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& weight_D, const at::Tensor& inverse_rms,
                                 NormStyle style) {
  const at::ScalarType dtype = inverse_rms.scalar_type();
  const int64_t width = x.size(-1);
  const at::Tensor wide = grad.to(dtype);
  const at::Tensor normal = at::mul(x.to(dtype), inverse_rms);
  at::Tensor product = at::mul(wide, normal);
  const at::Tensor grad_weight = product.reshape({-1, width}).sum(0);
  const at::Tensor gain = Gain(weight_D, style, dtype);
  const at::Tensor mean = at::mean(product.mul_(gain), /*dim=*/-1, /*keepdim=*/true);
  at::Tensor grad_x = at::mul(wide, gain).addcmul_(normal, mean, -1).mul_(inverse_rms);
  return {grad_x.to(x.scalar_type()), grad_weight.to(weight_D.scalar_type())};
}

}  // namespace osler
