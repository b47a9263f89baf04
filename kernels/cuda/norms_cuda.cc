#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norm_rope.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rows_cuda.h"

namespace osler {
namespace {

bool Knows(const at::Tensor& x, const at::Tensor& weight_D) {
  return HasElement(x) && x.numel() > 0 && weight_D.is_contiguous() &&
         (weight_D.scalar_type() == x.scalar_type() || weight_D.scalar_type() == at::kFloat);
}

int64_t RowCount(const at::Tensor& x) { return x.numel() / x.size(-1); }

at::Tensor Floats(int64_t count, const at::Tensor& like) {
  return at::empty({count}, like.options().dtype(at::kFloat));
}

// With a defined `sum`, residual + x is normalised; with the residual alone, the result is added to
// it. False: there is no kernel for this.
bool Normalise(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight_D,
               const NormOptions& norm, NormOutput& out) {
  if (!Knows(x, weight_D)) return false;
  out.y = at::empty_like(x);
  out.inverse_rms = Floats(RowCount(x), x);
  const cuda::RmsNormForward arguments{.x = x.const_data_ptr(),
                                       .residual = DataOrNull(residual),
                                       .weight = weight_D.const_data_ptr(),
                                       .sum = MutableOrNull(out.sum),
                                       .y = out.y.mutable_data_ptr(),
                                       .inverse_rms = out.inverse_rms.mutable_data_ptr<float>(),
                                       .rows = RowCount(x),
                                       .width = static_cast<int32_t>(x.size(-1)),
                                       .eps = static_cast<float>(norm.eps),
                                       .style = norm.style,
                                       .element = CudaElement(x),
                                       .weight_element = CudaElement(weight_D)};
  return Took(osler_rms_norm_forward(&arguments, CudaStreamOf(x)), "RMS norm");
}

cuda::RopeShape ShapeOf(const at::Tensor& x_THD, const RopeTables& tables, float direction) {
  return {.cos = tables.cos_TD.const_data_ptr<float>(),
          .sin = tables.sin_TD.const_data_ptr<float>(),
          .tokens = x_THD.size(0),
          .heads = static_cast<int32_t>(x_THD.size(1)),
          .width = static_cast<int32_t>(x_THD.size(2)),
          .direction = direction,
          .element = CudaElement(x_THD),
          .weight_element = CudaElement(x_THD)};
}

// Undefined: there is no kernel for this.
at::Tensor Rotate(const at::Tensor& x_THD, const RopeTables& tables, float direction) {
  if (!HasElement(x_THD) || x_THD.numel() == 0) return {};
  const at::Tensor y_THD = at::empty(x_THD.sizes(), x_THD.options());
  const cuda::NormRopeForward arguments{.shape = ShapeOf(x_THD, tables, direction),
                                        .x = RowsOf(x_THD),
                                        .y = RowsOf(y_THD),
                                        .weight = nullptr,
                                        .inverse_rms = nullptr,
                                        .eps = 0,
                                        .style = NormStyle::kPlain};
  const bool took = Took(osler_norm_rope_forward(&arguments, CudaStreamOf(x_THD)), "RoPE");
  return took ? y_THD : at::Tensor();
}

NormOutput RmsNormForwardCuda(const at::Tensor& x, const at::Tensor& weight_D,
                              const NormOptions& norm) {
  NormOutput out;
  return Normalise(x, {}, weight_D, norm, out) ? out
                                               : AtenRowKernels().norms.rms_norm(x, weight_D, norm);
}

NormOutput AddRmsNormForwardCuda(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm) {
  NormOutput out;
  out.sum = at::empty_like(x);
  return Normalise(x, residual, weight_D, norm, out)
             ? out
             : AtenRowKernels().norms.add_rms_norm(residual, x, weight_D, norm);
}

NormOutput RmsNormAddForwardCuda(const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight_D, const NormOptions& norm) {
  NormOutput out;
  return Normalise(x, residual, weight_D, norm, out)
             ? out
             : AtenRowKernels().norms.rms_norm_add(residual, x, weight_D, norm);
}

NormGradients RmsNormBackwardCuda(const at::Tensor& grad, const at::Tensor& grad_sum,
                                  const NormInputs& inputs, WeightGradient weight_gradient,
                                  const NormOptions& norm) {
  const at::Tensor& x = inputs.x;
  if (Knows(x, inputs.weight_D)) {
    const bool wanted = weight_gradient == WeightGradient::kWanted;
    const auto width = static_cast<int32_t>(x.size(-1));
    const at::Tensor grad_x = at::empty_like(x),
                     grad_weight = wanted ? Floats(width, x) : at::Tensor(),
                     workspace = wanted ? Floats(osler_rms_norm_workspace(width), x) : at::Tensor();
    const cuda::RmsNormBackward arguments{
        .grad = grad.const_data_ptr(),
        .x = x.const_data_ptr(),
        .weight = inputs.weight_D.const_data_ptr(),
        .inverse_rms = inputs.inverse_rms.const_data_ptr<float>(),
        .grad_sum = DataOrNull(grad_sum),
        .grad_x = grad_x.mutable_data_ptr(),
        .grad_weight = static_cast<float*>(MutableOrNull(grad_weight)),
        .workspace = static_cast<float*>(MutableOrNull(workspace)),
        .rows = RowCount(x),
        .width = width,
        .style = norm.style,
        .element = CudaElement(x),
        .weight_element = CudaElement(inputs.weight_D)};
    if (Took(osler_rms_norm_backward(&arguments, CudaStreamOf(x)), "RMS norm backward"))
      return {grad_x, wanted ? grad_weight.to(inputs.weight_D.scalar_type()) : grad_weight};
  }
  return AtenRowKernels().norms.rms_norm_backward(grad, grad_sum, inputs, weight_gradient, norm);
}

at::Tensor RopeForwardCuda(const at::Tensor& x_THD, const RopeTables& tables) {
  const at::Tensor y_THD = Rotate(x_THD, tables, 1);
  return y_THD.defined() ? y_THD : AtenRowKernels().norms.rope(x_THD, tables);
}

at::Tensor RopeBackwardCuda(const at::Tensor& grad_THD, const RopeTables& tables) {
  const at::Tensor back_THD = Rotate(grad_THD, tables, -1);
  return back_THD.defined() ? back_THD : AtenRowKernels().norms.rope_backward(grad_THD, tables);
}

NormOutput NormRopeForwardCuda(const at::Tensor& x_THD, const at::Tensor& weight_D,
                               const RopeTables& tables, const NormOptions& norm) {
  if (Knows(x_THD, weight_D)) {
    const NormOutput out{at::empty(x_THD.sizes(), x_THD.options()),
                         Floats(x_THD.size(0) * x_THD.size(1), x_THD),
                         {}};
    cuda::NormRopeForward arguments{.shape = ShapeOf(x_THD, tables, 1),
                                    .x = RowsOf(x_THD),
                                    .y = RowsOf(out.y),
                                    .weight = weight_D.const_data_ptr(),
                                    .inverse_rms = out.inverse_rms.mutable_data_ptr<float>(),
                                    .eps = static_cast<float>(norm.eps),
                                    .style = norm.style};
    arguments.shape.weight_element = CudaElement(weight_D);
    if (Took(osler_norm_rope_forward(&arguments, CudaStreamOf(x_THD)), "norm and RoPE")) return out;
  }
  return AtenRowKernels().norms.norm_rope(x_THD, weight_D, tables, norm);
}

NormGradients NormRopeBackwardCuda(const at::Tensor& grad_THD, const NormInputs& inputs,
                                   const RopeTables& tables, WeightGradient weight_gradient,
                                   const NormOptions& norm) {
  const at::Tensor& x_THD = inputs.x;
  if (Knows(x_THD, inputs.weight_D)) {
    const bool wanted = weight_gradient == WeightGradient::kWanted;
    const auto width = static_cast<int32_t>(x_THD.size(2));
    const at::Tensor grad_x_THD = at::empty(x_THD.sizes(), x_THD.options()),
                     grad_weight = wanted ? Floats(width, x_THD) : at::Tensor(),
                     workspace =
                         wanted ? Floats(osler_norm_rope_workspace(width), x_THD) : at::Tensor();
    cuda::NormRopeBackward arguments{.shape = ShapeOf(x_THD, tables, 1),
                                     .grad = RowsOf(grad_THD),
                                     .x = RowsOf(x_THD),
                                     .grad_x = RowsOf(grad_x_THD),
                                     .weight = inputs.weight_D.const_data_ptr(),
                                     .inverse_rms = inputs.inverse_rms.const_data_ptr<float>(),
                                     .grad_weight = static_cast<float*>(MutableOrNull(grad_weight)),
                                     .workspace = static_cast<float*>(MutableOrNull(workspace)),
                                     .style = norm.style};
    arguments.shape.weight_element = CudaElement(inputs.weight_D);
    if (Took(osler_norm_rope_backward(&arguments, CudaStreamOf(x_THD)), "norm and RoPE backward"))
      return {grad_x_THD, wanted ? grad_weight.to(inputs.weight_D.scalar_type()) : grad_weight};
  }
  return AtenRowKernels().norms.norm_rope_backward(grad_THD, inputs, tables, weight_gradient, norm);
}

}  // namespace

NormKernels CudaNormKernels() {
  return {.rms_norm = RmsNormForwardCuda,
          .add_rms_norm = AddRmsNormForwardCuda,
          .rms_norm_add = RmsNormAddForwardCuda,
          .rms_norm_backward = RmsNormBackwardCuda,
          .rope = RopeForwardCuda,
          .rope_backward = RopeBackwardCuda,
          .norm_rope = NormRopeForwardCuda,
          .norm_rope_backward = NormRopeBackwardCuda};
}

}  // namespace osler
