#include "kernels/norm_rope_cpu.h"

#include <ATen/ops/empty.h>

#include "kernels/cpu_rows.h"
#include "kernels/norm_rope_isa.h"

namespace osler {
namespace {

const RopeKernels& Kernels(const at::Tensor& x, CpuIsa isa) {
  const auto i = static_cast<size_t>(ElementOf(x));
  return SelectIsa(isa, portable::kRopeKernels[i], avx2::kRopeKernels[i], avx512::kRopeKernels[i],
                   avx512_bf16::kRopeKernels[i], amx::kRopeKernels[i]);
}

RopeShape Shape(const at::Tensor& x_THD, const RopeTables& tables) {
  return {.heads = x_THD.size(1),
          .width = x_THD.size(2),
          .cos = tables.cos_TD.const_data_ptr<float>(),
          .sin = tables.sin_TD.const_data_ptr<float>(),
          .table_stride = tables.cos_TD.stride(0)};
}

HeadsLayout Layout(const at::Tensor& x_THD) { return {x_THD.stride(0), x_THD.stride(1)}; }

int64_t TokenWidth(const at::Tensor& x_THD) { return x_THD.size(1) * x_THD.size(2); }

at::Tensor Like(const at::Tensor& x_THD) { return at::empty(x_THD.sizes(), x_THD.options()); }

}  // namespace

at::Tensor RopeForwardCpu(const at::Tensor& x_THD, const RopeTables& tables, CpuIsa isa) {
  at::Tensor y_THD = Like(x_THD);
  const RopeForward in{.shape = Shape(x_THD, tables),
                       .x = x_THD.const_data_ptr(),
                       .x_layout = Layout(x_THD),
                       .y = y_THD.mutable_data_ptr(),
                       .gain = nullptr,
                       .inverse_rms = nullptr,
                       .eps = 0,
                       .style = NormStyle::kPlain};
  const RopeKernels& kernels = Kernels(x_THD, isa);
  ForRows(x_THD.size(0), TokenWidth(x_THD),
          [&](int64_t from, int64_t to) { kernels.forward(in, from, to); });
  return y_THD;
}

at::Tensor RopeBackwardCpu(const at::Tensor& grad_THD, const RopeTables& tables, CpuIsa isa) {
  at::Tensor grad_x_THD = Like(grad_THD);
  const RopeBackward in{.shape = Shape(grad_THD, tables),
                        .grad = grad_THD.const_data_ptr(),
                        .grad_layout = Layout(grad_THD),
                        .grad_x = grad_x_THD.mutable_data_ptr(),
                        .gain = nullptr,
                        .x = nullptr,
                        .x_layout = {},
                        .inverse_rms = nullptr,
                        .style = NormStyle::kPlain};
  const RopeKernels& kernels = Kernels(grad_THD, isa);
  ForRows(grad_THD.size(0), TokenWidth(grad_THD),
          [&](int64_t from, int64_t to) { kernels.backward(in, nullptr, from, to); });
  return grad_x_THD;
}

NormOutput NormRopeForwardCpu(const at::Tensor& x_THD, const at::Tensor& weight_D,
                              const RopeTables& tables, const NormOptions& norm) {
  const at::Tensor gain = Gain(weight_D, norm.style, x_THD);
  NormOutput out{Like(x_THD), at::empty({x_THD.size(0), x_THD.size(1)}, gain.options()), {}};
  const RopeForward in{.shape = Shape(x_THD, tables),
                       .x = x_THD.const_data_ptr(),
                       .x_layout = Layout(x_THD),
                       .y = out.y.mutable_data_ptr(),
                       .gain = gain.const_data_ptr(),
                       .inverse_rms = out.inverse_rms.mutable_data_ptr(),
                       .eps = norm.eps,
                       .style = norm.style};
  const RopeKernels& kernels = Kernels(x_THD, norm.isa);
  ForRows(x_THD.size(0), TokenWidth(x_THD),
          [&](int64_t from, int64_t to) { kernels.forward(in, from, to); });
  return out;
}

NormGradients NormRopeBackwardCpu(const at::Tensor& grad_THD, const NormInputs& inputs,
                                  const RopeTables& tables, WeightGradient weight_gradient,
                                  const NormOptions& norm) {
  const at::Tensor& x_THD = inputs.x;
  const at::Tensor gain = Gain(inputs.weight_D, norm.style, x_THD);
  NormGradients out{Like(x_THD), {}};
  const RopeBackward in{.shape = Shape(x_THD, tables),
                        .grad = grad_THD.const_data_ptr(),
                        .grad_layout = Layout(grad_THD),
                        .grad_x = out.x.mutable_data_ptr(),
                        .gain = gain.const_data_ptr(),
                        .x = x_THD.const_data_ptr(),
                        .x_layout = Layout(x_THD),
                        .inverse_rms = inputs.inverse_rms.const_data_ptr(),
                        .style = norm.style};
  const RopeKernels& kernels = Kernels(x_THD, norm.isa);
  const int64_t tokens = x_THD.size(0);
  if (weight_gradient == WeightGradient::kSkipped) {
    ForRows(tokens, TokenWidth(x_THD),
            [&](int64_t from, int64_t to) { kernels.backward(in, nullptr, from, to); });
    return out;
  }
  out.weight_D =
      SumOverRows(tokens, x_THD.size(2), x_THD, [&](void* sum, int64_t from, int64_t to) {
        kernels.backward(in, sum, from, to);
      }).to(inputs.weight_D.scalar_type());
  return out;
}

}  // namespace osler
