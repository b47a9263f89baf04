#include "kernels/norm_rope.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/row_kernels.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Kernels read heads of D dense values.
at::Tensor DenseHeads(const at::Tensor& x_THD) {
  return x_THD.stride(2) == 1 ? x_THD : x_THD.contiguous();
}

// Saves the tables only.
struct RopeFunction : torch::autograd::Function<RopeFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_THD,
                            const at::Tensor& cos_TD, const at::Tensor& sin_TD) {
    context->save_for_backward({cos_TD, sin_TD});
    return RowKernelsFor(x_THD).norms.rope(x_THD, {cos_TD, sin_TD});
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    return {RowKernelsFor(grads[0]).norms.rope_backward(DenseHeads(grads[0]), {saved[0], saved[1]}),
            {},
            {}};
  }
};

struct NormRopeFunction : torch::autograd::Function<NormRopeFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_THD,
                            const at::Tensor& weight_D, const at::Tensor& cos_TD,
                            const at::Tensor& sin_TD, const NormOptions& norm) {
    const NormOutput out =
        RowKernelsFor(x_THD).norms.norm_rope(x_THD, weight_D, {cos_TD, sin_TD}, norm);
    context->save_for_backward({x_THD, weight_D, out.inverse_rms, cos_TD, sin_TD});
    context->saved_data["style"] = static_cast<int64_t>(norm.style);
    return out.y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const NormGradients grad = RowKernelsFor(grads[0]).norms.norm_rope_backward(
        DenseHeads(grads[0]), {saved[0], saved[1], saved[2]}, {saved[3], saved[4]},
        context->needs_input_grad(1) ? WeightGradient::kWanted : WeightGradient::kSkipped,
        {.eps = 0, .style = static_cast<NormStyle>(context->saved_data["style"].toInt())});
    return {grad.x, grad.weight_D, {}, {}, {}};
  }
};

void Check(const at::Tensor& x_THD, const RopeTables& tables) {
  TORCH_CHECK(
      x_THD.dim() == 3 && x_THD.size(2) % 2 == 0 && tables.cos_TD.dim() == 2 &&
          tables.cos_TD.size(0) == x_THD.size(0) && tables.cos_TD.size(1) == x_THD.size(2) &&
          tables.sin_TD.sizes() == tables.cos_TD.sizes(),
      "RoPE tables of shape ", tables.cos_TD.sizes(), " for values of shape ", x_THD.sizes());
  TORCH_CHECK(tables.cos_TD.scalar_type() == at::kFloat && tables.cos_TD.is_contiguous() &&
                  tables.sin_TD.scalar_type() == at::kFloat && tables.sin_TD.is_contiguous(),
              "RoPE tables must be contiguous and fp32");
}

}  // namespace

at::Tensor ApplyRope(const at::Tensor& x_THD, const RopeTables& tables) {
  Check(x_THD, tables);
  return RopeFunction::apply(DenseHeads(x_THD), tables.cos_TD, tables.sin_TD);
}

at::Tensor NormRope(const at::Tensor& x_THD, const at::Tensor& weight_D, double eps,
                    NormStyle style, const RopeTables& tables) {
  Check(x_THD, tables);
  TORCH_CHECK(weight_D.dim() == 1 && weight_D.size(0) == x_THD.size(2),
              "the norm's weight has shape ", weight_D.sizes(), " for values of shape ",
              x_THD.sizes());
  return NormRopeFunction::apply(DenseHeads(x_THD), weight_D, tables.cos_TD, tables.sin_TD,
                                 NormOptions{.eps = eps, .style = style});
}

}  // namespace osler
