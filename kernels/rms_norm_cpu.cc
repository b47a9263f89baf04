#include "kernels/rms_norm_cpu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "kernels/cpu_rows.h"
#include "kernels/rms_norm_isa.h"

namespace osler {
namespace {

const NormKernels& Kernels(const at::Tensor& x, CpuIsa isa) {
  const auto i = static_cast<size_t>(ElementOf(x));
  return SelectIsa(isa, portable::kNormKernels[i], avx2::kNormKernels[i], avx512::kNormKernels[i],
                   avx512_bf16::kNormKernels[i], amx::kNormKernels[i]);
}

int64_t RowCount(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

const void* DataOrNull(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

// With a defined sum, residual + x is normalised; with the residual alone, the result is added to
// it.
NormOutput Forward(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& sum,
                   const at::Tensor& weight_D, const NormOptions& norm) {
  const int64_t rows = RowCount(x), width = x.size(-1);
  const at::Tensor gain = Gain(weight_D, norm.style, x);
  NormOutput out{at::empty_like(x), at::empty({rows}, gain.options()), sum};
  const NormForward in{.x = x.const_data_ptr(),
                       .residual = DataOrNull(residual),
                       .gain = gain.const_data_ptr(),
                       .sum = sum.defined() ? sum.mutable_data_ptr() : nullptr,
                       .y = out.y.mutable_data_ptr(),
                       .inverse_rms = out.inverse_rms.mutable_data_ptr(),
                       .width = width,
                       .eps = norm.eps,
                       .style = norm.style};
  const NormKernels& kernels = Kernels(x, norm.isa);
  ForRows(rows, width, [&](int64_t from, int64_t to) { kernels.forward(in, from, to); });
  return out;
}

}  // namespace

NormOutput RmsNormForward(const at::Tensor& x, const at::Tensor& weight_D,
                          const NormOptions& norm) {
  return Forward(x, {}, {}, weight_D, norm);
}

NormOutput AddRmsNormForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm) {
  return Forward(x, residual, at::empty_like(x), weight_D, norm);
}

NormOutput RmsNormAddForward(const at::Tensor& residual, const at::Tensor& x,
                             const at::Tensor& weight_D, const NormOptions& norm) {
  return Forward(x, residual, {}, weight_D, norm);
}

NormGradients RmsNormBackward(const at::Tensor& grad, const at::Tensor& grad_sum,
                              const NormInputs& inputs, WeightGradient weight_gradient,
                              const NormOptions& norm) {
  const at::Tensor& x = inputs.x;
  const int64_t rows = RowCount(x), width = x.size(-1);
  const at::Tensor gain = Gain(inputs.weight_D, norm.style, x);
  NormGradients out{at::empty_like(x), {}};
  const NormBackward in{.grad = grad.const_data_ptr(),
                        .x = x.const_data_ptr(),
                        .gain = gain.const_data_ptr(),
                        .inverse_rms = inputs.inverse_rms.const_data_ptr(),
                        .grad_sum = DataOrNull(grad_sum),
                        .grad_x = out.x.mutable_data_ptr(),
                        .width = width,
                        .style = norm.style};
  const NormKernels& kernels = Kernels(x, norm.isa);
  if (weight_gradient == WeightGradient::kSkipped) {
    ForRows(rows, width,
            [&](int64_t from, int64_t to) { kernels.backward(in, nullptr, from, to); });
    return out;
  }
  out.weight_D = SumOverRows(rows, width, x, [&](void* sum, int64_t from, int64_t to) {
                   kernels.backward(in, sum, from, to);
                 }).to(inputs.weight_D.scalar_type());
  return out;
}

}  // namespace osler
