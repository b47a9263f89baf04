// The autograd form of kernels with a backward of their own, all in this file: its header is slow
// to compile.
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/rms_norm.h"
#include "kernels/rms_norm_cpu.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Saves x, the weight and one number a row.
struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight_D, double eps, int64_t style) {
    RmsNormOutput output = RmsNormForward(x, weight_D, eps, static_cast<NormStyle>(style));
    context->save_for_backward({x, weight_D, output.inverse_rms});
    context->saved_data["style"] = style;
    return output.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const auto style = static_cast<NormStyle>(context->saved_data["style"].toInt());
    const RmsNormGradients grad = RmsNormBackward(grads[0], saved[0], saved[1], saved[2], style);
    return {grad.x, grad.weight_D, {}, {}};
  }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, double eps, NormStyle style) {
  TORCH_CHECK(x.dim() > 0 && weight_D.dim() == 1 && weight_D.size(0) == x.size(-1),
              "the norm's weight has shape ", weight_D.sizes(), " for values of shape ", x.sizes());
  return RmsNormFunction::apply(x, weight_D, eps, static_cast<int64_t>(style));
}

}  // namespace osler
