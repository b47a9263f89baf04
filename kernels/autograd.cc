// The autograd form of kernels with a backward of their own, all in this file: its header is slow
// to compile.
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/interval_attention.h"
#include "kernels/interval_attention_cpu.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Saves q, k, v, the output and its log-sum-exps. Differentiating twice is an error.
struct IntervalAttentionFunction : torch::autograd::Function<IntervalAttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THD,
                            const at::Tensor& k_SHD, const at::Tensor& v_SHD,
                            const at::Tensor& lo_T, const at::Tensor& hi_T, double scale) {
    IntervalAttentionOutput output =
        IntervalAttentionForwardCpu(q_THD, k_SHD, v_SHD, {lo_T, hi_T}, {.scale = scale});
    variable_list saved = {q_THD, k_SHD, v_SHD, lo_T, hi_T, output.out_THD};
    saved.insert(saved.end(), output.lse.begin(), output.lse.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["scale"] = scale;
    return output.out_THD;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list saved = context->get_saved_variables();
    const IntervalAttentionOutput output{.out_THD = saved[5],
                                         .lse = {saved.begin() + 6, saved.end()}};
    const IntervalAttentionGradients grad = IntervalAttentionBackwardCpu(
        grads[0], saved[0], saved[1], saved[2], output, {saved[3], saved[4]},
        {.scale = context->saved_data["scale"].toDouble()});
    return {grad.q_THD, grad.k_SHD, grad.v_SHD, {}, {}, {}};
  }
};

void CheckAttentionInput(const at::Tensor& q_THD, const at::Tensor& k_SHD,
                         const at::Tensor& v_SHD) {
  TORCH_CHECK(q_THD.dim() == 3 && k_SHD.dim() == 3 && v_SHD.sizes() == k_SHD.sizes(),
              "attention takes q [T, H, D] and k, v [S, K, D]; got ", q_THD.sizes(), ", ",
              k_SHD.sizes(), ", ", v_SHD.sizes());
  TORCH_CHECK(q_THD.size(2) == k_SHD.size(2), "q and k have widths ", q_THD.size(2), " and ",
              k_SHD.size(2));
  TORCH_CHECK(k_SHD.size(1) > 0 && q_THD.size(1) % k_SHD.size(1) == 0, q_THD.size(1),
              " query heads are not a multiple of ", k_SHD.size(1), " key heads");
  const at::ScalarType dtype = q_THD.scalar_type();
  TORCH_CHECK(dtype == k_SHD.scalar_type() && dtype == v_SHD.scalar_type() &&
                  (dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16),
              "q, k and v must share one of fp32, fp64 and bf16");
}

// The kernel reads rows of D values.
at::Tensor DenseRows(const at::Tensor& x_THD) {
  return x_THD.stride(2) == 1 ? x_THD : x_THD.contiguous();
}

}  // namespace

at::Tensor IntervalAttention(const at::Tensor& q_THD, const at::Tensor& k_SHD,
                             const at::Tensor& v_SHD, const MaskIntervals& mask,
                             const AttentionOptions& options) {
  CheckAttentionInput(q_THD, k_SHD, v_SHD);
  return IntervalAttentionFunction::apply(DenseRows(q_THD), DenseRows(k_SHD), DenseRows(v_SHD),
                                          mask.lo_T, mask.hi_T, options.scale);
}

}  // namespace osler
