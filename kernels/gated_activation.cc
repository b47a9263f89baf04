#include "kernels/gated_activation.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/row_kernels.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct GatedActivationFunction : torch::autograd::Function<GatedActivationFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_TF,
                            const at::Tensor& up_TF, GateKind kind) {
    context->save_for_backward({gate_TF, up_TF});
    context->saved_data["kind"] = static_cast<int64_t>(kind);
    return RowKernelsFor(gate_TF).gated(gate_TF, up_TF, kind);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const auto kind = static_cast<GateKind>(context->saved_data["kind"].toInt());
    const GatedGradients grad =
        RowKernelsFor(grads[0]).gated_backward(grads[0].contiguous(), saved[0], saved[1], kind);
    return {grad.gate_TF, grad.up_TF, {}};
  }
};

// [..., F] as [T, F] with F dense: a view where the strides allow it.
at::Tensor DenseRows(const at::Tensor& x) {
  const at::Tensor x_TF =
      x.dim() == 2 ? x : x.reshape({x.size(-1) == 0 ? 0 : x.numel() / x.size(-1), x.size(-1)});
  return x_TF.stride(1) == 1 ? x_TF : x_TF.contiguous();
}

}  // namespace

at::Tensor GatedActivation(const at::Tensor& gate, const at::Tensor& up, GateKind kind) {
  TORCH_CHECK(
      gate.dim() > 0 && gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(),
      "gate and up have shapes ", gate.sizes(), " and ", up.sizes(), ", dtypes ",
      gate.scalar_type(), " and ", up.scalar_type());
  return GatedActivationFunction::apply(DenseRows(gate), DenseRows(up), kind).view(gate.sizes());
}

}  // namespace osler
