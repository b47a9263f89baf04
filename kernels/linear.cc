#include "kernels/linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "kernels/accumulate.h"
#include "kernels/cpu_isa.h"
#include "kernels/linear_rows.h"

namespace osler {

namespace portable {
LinearRowsKernel LinearRowsFor(WeightType type);
}
namespace avx2 {
LinearRowsKernel LinearRowsFor(WeightType type);
}
namespace avx512 {
LinearRowsKernel LinearRowsFor(WeightType type);
}
namespace avx512_bf16 {
LinearRowsKernel LinearRowsFor(WeightType type);
}
namespace amx {
LinearRowsKernel LinearRowsFor(WeightType type);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kMaxRows = 16;
constexpr int64_t kGrain = 1 << 16;  // products that pay for another thread

LinearRowsKernel KernelFor(WeightType type) {
  using For = LinearRowsKernel (*)(WeightType);
  return SelectIsa<For>(BestCpuIsa(), portable::LinearRowsFor, avx2::LinearRowsFor,
                        avx512::LinearRowsFor, avx512_bf16::LinearRowsFor,
                        amx::LinearRowsFor)(type);
}

bool IsForFewRows(const at::Tensor& x_TD, const at::Tensor& weight_ED) {
  const bool differentiated =
      at::GradMode::is_enabled() && (x_TD.requires_grad() || weight_ED.requires_grad());
  const bool known =
      weight_ED.scalar_type() == at::kFloat || weight_ED.scalar_type() == at::kBFloat16;
  return !differentiated && known && x_TD.is_cpu() && x_TD.dim() == 2 && weight_ED.dim() == 2 &&
         x_TD.size(0) <= kMaxRows && x_TD.size(1) == weight_ED.size(1) &&
         x_TD.scalar_type() == weight_ED.scalar_type() && weight_ED.is_contiguous();
}

struct SummingLinear : torch::autograd::Function<SummingLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD,
                            const at::Tensor& weight_ED, const std::optional<at::Tensor>& bias_E) {
    context->save_for_backward({x_TD, weight_ED});
    context->saved_data["biased"] = bias_E.has_value();
    return at::linear(x_TD, weight_ED, bias_E);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x_TD = saved[0], &weight_ED = saved[1], grad_TE = grads[0].contiguous();
    AccumulateProduct(weight_ED.mutable_grad(), grad_TE, x_TD);
    const bool biased = context->saved_data["biased"].toBool();
    return {context->needs_input_grad(0) ? at::mm(grad_TE, weight_ED) : at::Tensor(),
            {},
            biased && context->needs_input_grad(2) ? grad_TE.sum(0) : at::Tensor()};
  }
};

}  // namespace

at::Tensor Linear(const at::Tensor& x_TD, const at::Tensor& weight_ED, const at::Tensor& bias_E) {
  if (!weight_ED.is_cpu() && weight_ED.requires_grad() && weight_ED.grad().defined())
    return SummingLinear::apply(
        x_TD, weight_ED, bias_E.defined() ? std::optional<at::Tensor>(bias_E) : std::nullopt);
  if (!IsForFewRows(x_TD, weight_ED)) return at::linear(x_TD, weight_ED, bias_E);
  const at::Tensor wide_TD = x_TD.to(at::kFloat).contiguous();
  const int64_t rows = x_TD.size(0), depth = x_TD.size(1), width = weight_ED.size(0);
  at::Tensor out_TE = at::empty({rows, width}, at::kFloat);
  const LinearRowsArguments args = {wide_TD.const_data_ptr<float>(),
                                    weight_ED.const_data_ptr(),
                                    out_TE.mutable_data_ptr<float>(),
                                    rows,
                                    depth,
                                    width};
  const bool narrow = weight_ED.scalar_type() == at::kBFloat16;
  const LinearRowsKernel kernel = KernelFor(narrow ? WeightType::kBf16 : WeightType::kFp32);
  // Chunks of four columns, so that the same code makes a column whatever the number of threads.
  const int64_t fours = (width + 3) / 4;
  at::parallel_for(
      0, fours, std::max<int64_t>(1, kGrain / (4 * std::max<int64_t>(1, depth * rows))),
      [&](int64_t from, int64_t to) { kernel(args, 4 * from, std::min(4 * to, width)); });
  if (bias_E.defined()) out_TE.add_(bias_E);
  return out_TE.to(x_TD.scalar_type());
}

}  // namespace osler
