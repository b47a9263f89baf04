#include "kernels/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/row_kernels.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void Save(AutogradContext* context, const NormInputs& inputs, const NormOptions& norm) {
  context->save_for_backward({inputs.x, inputs.weight_D, inputs.inverse_rms});
  context->saved_data["style"] = static_cast<int64_t>(norm.style);
  context->set_materialize_grads(false);
}

// grad and grad_sum may be undefined; weight_edge is the weight's place among the tensor inputs.
NormGradients Backward(AutogradContext* context, const at::Tensor& grad, const at::Tensor& grad_sum,
                       size_t weight_edge) {
  if (!grad.defined()) return {grad_sum, {}};
  const variable_list saved = context->get_saved_variables();
  return RowKernelsFor(grad).norms.rms_norm_backward(
      grad.contiguous(), grad_sum.defined() ? grad_sum.contiguous() : grad_sum,
      {saved[0], saved[1], saved[2]},
      context->needs_input_grad(weight_edge) ? WeightGradient::kWanted : WeightGradient::kSkipped,
      {.eps = 0, .style = static_cast<NormStyle>(context->saved_data["style"].toInt())});
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight_D, const NormOptions& norm) {
    const NormOutput out = RowKernelsFor(x).norms.rms_norm(x, weight_D, norm);
    Save(context, {x, weight_D, out.inverse_rms}, norm);
    return out.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const NormGradients grad = Backward(context, grads[0], {}, 1);
    return {grad.x, grad.weight_D, {}};
  }
};

struct AddRmsNormFunction : torch::autograd::Function<AddRmsNormFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& residual,
                               const at::Tensor& x, const at::Tensor& weight_D,
                               const NormOptions& norm) {
    const NormOutput out = RowKernelsFor(x).norms.add_rms_norm(residual, x, weight_D, norm);
    Save(context, {out.sum, weight_D, out.inverse_rms}, norm);
    return {out.sum, out.y};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const NormGradients grad = Backward(context, grads[1], grads[0], 2);
    return {grad.x, grad.x, grad.weight_D, {}};
  }
};

struct RmsNormAddFunction : torch::autograd::Function<RmsNormAddFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& residual,
                            const at::Tensor& x, const at::Tensor& weight_D,
                            const NormOptions& norm) {
    const NormOutput out = RowKernelsFor(x).norms.rms_norm_add(residual, x, weight_D, norm);
    Save(context, {x, weight_D, out.inverse_rms}, norm);
    return out.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const NormGradients grad = Backward(context, grads[0], {}, 2);
    return {grads[0], grad.x, grad.weight_D, {}};
  }
};

void Check(const at::Tensor& x, const at::Tensor& weight_D) {
  TORCH_CHECK(x.dim() > 0 && weight_D.dim() == 1 && weight_D.size(0) == x.size(-1),
              "the norm's weight has shape ", weight_D.sizes(), " for values of shape ", x.sizes());
}

void CheckResidual(const at::Tensor& residual, const at::Tensor& x) {
  TORCH_CHECK(residual.sizes() == x.sizes() && residual.scalar_type() == x.scalar_type(),
              "a residual of shape ", residual.sizes(), " and ", residual.scalar_type(),
              " does not go with values of shape ", x.sizes(), " and ", x.scalar_type());
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, double eps, NormStyle style) {
  Check(x, weight_D);
  return RmsNormFunction::apply(x.contiguous(), weight_D, NormOptions{.eps = eps, .style = style});
}

AddRmsNormOutput AddRmsNorm(const at::Tensor& residual, const at::Tensor& x,
                            const at::Tensor& weight_D, double eps, NormStyle style) {
  Check(x, weight_D);
  CheckResidual(residual, x);
  const variable_list out = AddRmsNormFunction::apply(
      residual.contiguous(), x.contiguous(), weight_D, NormOptions{.eps = eps, .style = style});
  return {out[0], out[1]};
}

at::Tensor RmsNormAdd(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight_D,
                      double eps, NormStyle style) {
  Check(x, weight_D);
  CheckResidual(residual, x);
  return RmsNormAddFunction::apply(residual.contiguous(), x.contiguous(), weight_D,
                                   NormOptions{.eps = eps, .style = style});
}

}  // namespace osler
