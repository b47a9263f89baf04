#include "kernels/gated_mlp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/accumulate.h"
#include "kernels/gated_activation.h"
#include "kernels/linear.h"
#include "kernels/row_kernels.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename Body>
void ForEachChunk(int64_t tokens, int64_t chunk_tokens, Body body) {
  for (int64_t from = 0; from < tokens; from += chunk_tokens)
    body(from, std::min(chunk_tokens, tokens - from));
}

// Where the gradient of a weight is summed; undefined: nobody wants it.
at::Tensor SumFor(const at::Tensor& weight, bool wanted) {
  if (!wanted) return {};
  const bool narrow = weight.scalar_type() == at::kBFloat16;
  return at::zeros(weight.sizes(),
                   weight.options().dtype(narrow ? at::kFloat : weight.scalar_type()));
}

struct Weights {
  at::Tensor gate_FD, up_FD, down_DF;
};

// The gradients of one chunk are added to `sums`; returns that of its input, undefined unless
// wanted.
at::Tensor BackwardChunk(const at::Tensor& grad_CD, const at::Tensor& x_CD, const Weights& weights,
                         GateKind kind, bool input_wanted, Weights& sums) {
  const RowKernels& kernels = RowKernelsFor(x_CD);
  const at::Tensor gate_CF = at::linear(x_CD, weights.gate_FD);
  const at::Tensor up_CF = at::linear(x_CD, weights.up_FD);
  if (sums.down_DF.defined())
    AccumulateProduct(sums.down_DF, grad_CD, kernels.gated(gate_CF, up_CF, kind));
  const GatedGradients grads =
      kernels.gated_backward(at::mm(grad_CD, weights.down_DF), gate_CF, up_CF, kind);
  if (sums.gate_FD.defined()) AccumulateProduct(sums.gate_FD, grads.gate_TF, x_CD);
  if (sums.up_FD.defined()) AccumulateProduct(sums.up_FD, grads.up_TF, x_CD);
  if (!input_wanted) return {};
  return at::mm(grads.gate_TF, weights.gate_FD).add_(at::mm(grads.up_TF, weights.up_FD));
}

struct TiledMlpFunction : torch::autograd::Function<TiledMlpFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD,
                            const at::Tensor& gate_FD, const at::Tensor& up_FD,
                            const at::Tensor& down_DF, GateKind kind, int64_t chunk_tokens) {
    context->save_for_backward({x_TD, gate_FD, up_FD, down_DF});
    context->saved_data["kind"] = static_cast<int64_t>(kind);
    context->saved_data["chunk_tokens"] = chunk_tokens;
    at::Tensor out_TD = at::empty(x_TD.sizes(), x_TD.options());
    ForEachChunk(x_TD.size(0), chunk_tokens, [&](int64_t from, int64_t count) {
      const at::Tensor x_CD = x_TD.narrow(0, from, count);
      out_TD.narrow(0, from, count)
          .copy_(at::linear(
              RowKernelsFor(x_CD).gated(at::linear(x_CD, gate_FD), at::linear(x_CD, up_FD), kind),
              down_DF));
    });
    return out_TD;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x_TD = saved[0], grad_TD = grads[0].contiguous();
    const Weights weights{saved[1], saved[2], saved[3]};
    Weights sums{SumFor(weights.gate_FD, context->needs_input_grad(1)),
                 SumFor(weights.up_FD, context->needs_input_grad(2)),
                 SumFor(weights.down_DF, context->needs_input_grad(3))};
    const bool input_wanted = context->needs_input_grad(0);
    const at::Tensor grad_x_TD =
        input_wanted ? at::empty(x_TD.sizes(), x_TD.options()) : at::Tensor();
    const auto kind = static_cast<GateKind>(context->saved_data["kind"].toInt());
    ForEachChunk(x_TD.size(0), context->saved_data["chunk_tokens"].toInt(),
                 [&](int64_t from, int64_t count) {
                   const at::Tensor grad_x_CD =
                       BackwardChunk(grad_TD.narrow(0, from, count), x_TD.narrow(0, from, count),
                                     weights, kind, input_wanted, sums);
                   if (input_wanted) grad_x_TD.narrow(0, from, count).copy_(grad_x_CD);
                 });
    const auto rounded = [&](const at::Tensor& sum) {
      return sum.defined() ? sum.to(x_TD.scalar_type()) : sum;
    };
    return {grad_x_TD, rounded(sums.gate_FD), rounded(sums.up_FD), rounded(sums.down_DF), {}, {}};
  }
};

}  // namespace

at::Tensor GatedMlp(const at::Tensor& x_TD, const at::Tensor& gate_FD, const at::Tensor& up_FD,
                    const at::Tensor& down_DF, GateKind kind, int64_t chunk_tokens) {
  if (chunk_tokens == 0 || x_TD.size(0) <= chunk_tokens) {
    const at::Tensor gate_TF = Linear(x_TD, gate_FD, {}), up_TF = Linear(x_TD, up_FD, {});
    return Linear(GatedActivation(gate_TF, up_TF, kind), down_DF, {});
  }
  TORCH_CHECK(chunk_tokens > 0, "chunks of ", chunk_tokens, " tokens");
  return TiledMlpFunction::apply(x_TD.contiguous(), gate_FD, up_FD, down_DF, kind, chunk_tokens);
}

}  // namespace osler
