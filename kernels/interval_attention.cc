#include "kernels/interval_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/interval_attention_dispatch.h"
#include "kernels/interval_attention_tiles.h"

namespace osler {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The kernel reads rows of D values.
at::Tensor DenseRows(const at::Tensor& x_THD) {
  return x_THD.stride(2) == 1 ? x_THD : x_THD.contiguous();
}

// Saves q, k, v, the output and its log-sum-exps.
struct IntervalAttentionFunction : torch::autograd::Function<IntervalAttentionFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q_THD,
                               const at::Tensor& k_SHD, const at::Tensor& v_SHD,
                               const at::Tensor& lo_T, const at::Tensor& hi_T,
                               const AttentionOptions& options) {
    const AttentionOutput output = MakeOrRecall(options.memo, [&] {
      return IntervalAttentionForward({q_THD, k_SHD, v_SHD, {lo_T, hi_T}, options});
    });
    context->save_for_backward({q_THD, k_SHD, v_SHD, lo_T, hi_T, output.out_THD, output.lse_TH});
    context->saved_data["scale"] = options.scale;
    context->saved_data["soft_cap"] = options.soft_cap;
    context->set_materialize_grads(false);
    return {output.out_THD, output.lse_TH};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const IntervalAttentionInput input{
        saved[0],
        saved[1],
        saved[2],
        {saved[3], saved[4]},
        {.scale = context->saved_data["scale"].toDouble(),
         .soft_cap = context->saved_data["soft_cap"].toOptional<double>()}};
    const AttentionOutput output{.out_THD = saved[5], .lse_TH = saved[6]};
    AttentionOutput grad{
        .out_THD = DenseRows(grads[0].defined() ? grads[0] : at::zeros_like(saved[5])),
        .lse_TH = grads[1].defined() ? grads[1].contiguous() : at::Tensor()};
    const IntervalAttentionGradients result = IntervalAttentionBackward(grad, input, output);
    return {result.q_THD, result.k_SHD, result.v_SHD, {}, {}, {}};
  }
};

}  // namespace

AttentionOutput MakeOrRecall(AttentionOutput* memo, absl::FunctionRef<AttentionOutput()> make) {
  if (memo == nullptr) return make();
  if (!memo->out_THD.defined()) *memo = make();
  // Autograd gives the tensors that it returns a graph, which the memo is not to hold.
  return {.out_THD = memo->out_THD.detach(), .lse_TH = memo->lse_TH.detach()};
}

void CheckAttentionInput(const at::Tensor& q_THD, const at::Tensor& k_SHD, const at::Tensor& v_SHD,
                         const AttentionOptions& options) {
  TORCH_CHECK(q_THD.dim() == 3 && k_SHD.dim() == 3 && v_SHD.sizes() == k_SHD.sizes(),
              "attention takes q [T, H, D] and k, v [S, K, D]; got ", q_THD.sizes(), ", ",
              k_SHD.sizes(), ", ", v_SHD.sizes());
  const int64_t width = q_THD.size(2);
  TORCH_CHECK(width == k_SHD.size(2), "q and k have widths ", width, " and ", k_SHD.size(2));
  TORCH_CHECK(width > 0 && width % 8 == 0 && width <= kMaxAttentionWidth, "a head of width ", width,
              ": the kernel takes multiples of 8 up to ", kMaxAttentionWidth);
  TORCH_CHECK(k_SHD.size(1) > 0 && q_THD.size(1) % k_SHD.size(1) == 0, q_THD.size(1),
              " query heads are not a multiple of ", k_SHD.size(1), " key heads");
  const at::ScalarType dtype = q_THD.scalar_type();
  TORCH_CHECK(dtype == k_SHD.scalar_type() && dtype == v_SHD.scalar_type() &&
                  (dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16),
              "q, k and v must share one of fp32, fp64 and bf16");
  TORCH_CHECK(q_THD.device() == k_SHD.device() && q_THD.device() == v_SHD.device(),
              "q, k and v must be on one device; got ", q_THD.device(), ", ", k_SHD.device(), ", ",
              v_SHD.device());
  TORCH_CHECK(!options.soft_cap || *options.soft_cap > 0, "a soft cap must be positive");
}

MaskIntervals CausalDocumentIntervals(const std::vector<int32_t>& doc_starts, int64_t length,
                                      std::optional<int64_t> window) {
  TORCH_CHECK(length == 0 || (!doc_starts.empty() && doc_starts[0] == 0),
              "the first document must start at 0");
  for (size_t d = 0; d < doc_starts.size(); ++d) {
    TORCH_CHECK(doc_starts[d] < length && (d == 0 || doc_starts[d - 1] < doc_starts[d]),
                "document ", d, " starts at ", doc_starts[d], ", out of order or outside the ",
                length, " tokens");
  }
  TORCH_CHECK(!window || *window > 0, "the attention window must be positive");
  MaskIntervals mask{at::empty({length}, at::kInt), at::empty({length}, at::kInt)};
  auto* lo = mask.lo_T.mutable_data_ptr<int32_t>();
  auto* hi = mask.hi_T.mutable_data_ptr<int32_t>();
  size_t next = 0;
  int64_t start = 0;
  for (int64_t i = 0; i < length; ++i) {
    if (next < doc_starts.size() && doc_starts[next] == i) start = doc_starts[next++];
    lo[i] = static_cast<int32_t>(window ? std::max(start, i - *window + 1) : start);
    hi[i] = static_cast<int32_t>(i + 1);
  }
  return mask;
}

AttentionOutput IntervalAttentionWithLse(const at::Tensor& q_THD, const at::Tensor& k_SHD,
                                         const at::Tensor& v_SHD, const MaskIntervals& mask,
                                         const AttentionOptions& options) {
  CheckAttentionInput(q_THD, k_SHD, v_SHD, options);
  const variable_list result = IntervalAttentionFunction::apply(
      DenseRows(q_THD), DenseRows(k_SHD), DenseRows(v_SHD), mask.lo_T, mask.hi_T, options);
  return {.out_THD = result[0], .lse_TH = result[1]};
}

at::Tensor IntervalAttention(const at::Tensor& q_THD, const at::Tensor& k_SHD,
                             const at::Tensor& v_SHD, const MaskIntervals& mask,
                             const AttentionOptions& options) {
  return IntervalAttentionWithLse(q_THD, k_SHD, v_SHD, mask, options).out_THD;
}

}  // namespace osler
