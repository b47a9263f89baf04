#include "kernels/cuda/interval_attention_cuda.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "kernels/cpu_rows.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/interval_attention_aten.h"

namespace osler {
namespace {

constexpr int64_t kAlignment = 16;  // bytes, of addresses and strides

AttentionChoice Choice() {
  static const AttentionChoice choice =
      AttentionChoiceOfEnvironment().value_or(AttentionChoice::kAuto);
  return choice;
}

AtenProducts Products() {
  return Choice() == AttentionChoice::kReference ? AtenProducts::kWide : AtenProducts::kNarrow;
}

bool MayUseOwn(const at::Tensor& q_THD) {
  if (Choice() == AttentionChoice::kAten || Choice() == AttentionChoice::kReference) return false;
  return q_THD.scalar_type() == at::kBFloat16 && q_THD.size(0) > 0;
}

cuda::AttentionKernels Wanted() {
  switch (Choice()) {
    case AttentionChoice::kSm90: return cuda::AttentionKernels::kSm90;
    case AttentionChoice::kSm80: return cuda::AttentionKernels::kSm80;
    default: return cuda::AttentionKernels::kAuto;
  }
}

// The tensor as the kernels can read it.
at::Tensor Aligned(const at::Tensor& x_THD) {
  const auto bytes = static_cast<int64_t>(x_THD.element_size());
  const bool fits = x_THD.stride(2) == 1 && x_THD.stride(0) * bytes % kAlignment == 0 &&
                    x_THD.stride(1) * bytes % kAlignment == 0 &&
                    reinterpret_cast<uintptr_t>(x_THD.const_data_ptr()) % kAlignment == 0;
  return fits ? x_THD : x_THD.clone(at::MemoryFormat::Contiguous);
}

cuda::AttentionInput Arguments(const IntervalAttentionInput& input) {
  return {.q = RowsOf(input.q_THD),
          .k = RowsOf(input.k_SHD),
          .v = RowsOf(input.v_SHD),
          .lo = input.mask.lo_T.const_data_ptr<int32_t>(),
          .hi = input.mask.hi_T.const_data_ptr<int32_t>(),
          .queries = static_cast<int32_t>(input.q_THD.size(0)),
          .keys = static_cast<int32_t>(input.k_SHD.size(0)),
          .heads = static_cast<int32_t>(input.q_THD.size(1)),
          .key_heads = static_cast<int32_t>(input.k_SHD.size(1)),
          .width = static_cast<int32_t>(input.q_THD.size(2)),
          .scale = static_cast<float>(input.options.scale),
          .soft_cap = static_cast<float>(input.options.soft_cap.value_or(0)),
          .element = cuda::Element::kBf16};
}

IntervalAttentionInput AlignedInput(const IntervalAttentionInput& input) {
  return {Aligned(input.q_THD), Aligned(input.k_SHD), Aligned(input.v_SHD), input.mask,
          input.options};
}

// Whether the kernels took the call. A forced choice must.
bool Launched(int result, const char* what) {
  TORCH_CHECK(result != cuda::kUnsupported || Choice() == AttentionChoice::kAuto,
              "OSLER_ATTENTION forces kernels that have no ", what, " for this shape and device");
  return Took(result, what);
}

}  // namespace

AttentionOutput IntervalAttentionForwardCuda(const IntervalAttentionInput& input,
                                             at::ScalarType out) {
  const at::Tensor& q_THD = input.q_THD;
  if (MayUseOwn(q_THD)) {
    const IntervalAttentionInput aligned = AlignedInput(input);
    const AttentionOutput output{
        .out_THD = at::empty(q_THD.sizes(), q_THD.options().dtype(out)),
        .lse_TH = at::empty({q_THD.size(0), q_THD.size(1)}, q_THD.options().dtype(at::kFloat))};
    const cuda::AttentionForward arguments{.in = Arguments(aligned),
                                           .out = RowsOf(output.out_THD),
                                           .out_element = CudaElement(out),
                                           .lse = output.lse_TH.mutable_data_ptr<float>()};
    if (Launched(osler_attention_forward(&arguments, Wanted(), CudaStreamOf(q_THD)),
                 "attention forward"))
      return output;
  }
  return IntervalAttentionForwardAten(input, out, Products());
}

IntervalAttentionGradients IntervalAttentionBackwardCuda(const AttentionOutput& grad,
                                                         const IntervalAttentionInput& input,
                                                         const AttentionOutput& output,
                                                         at::ScalarType type) {
  const at::Tensor& q_THD = input.q_THD;
  if (MayUseOwn(q_THD)) {
    const IntervalAttentionInput aligned = AlignedInput(input);
    const auto made = q_THD.options().dtype(type);
    const IntervalAttentionGradients result{at::empty(q_THD.sizes(), made),
                                            at::empty(input.k_SHD.sizes(), made),
                                            at::empty(input.v_SHD.sizes(), made)};
    const at::Tensor out = Aligned(output.out_THD),
                     grad_out = Aligned(grad.out_THD.to(out.scalar_type()));
    const at::Tensor lse_TH = output.lse_TH.contiguous(),
                     grad_lse_TH = grad.lse_TH.defined() ? grad.lse_TH.contiguous() : grad.lse_TH;
    const at::Tensor workspace =
        at::empty({osler_attention_workspace(static_cast<int32_t>(q_THD.size(0)),
                                             static_cast<int32_t>(q_THD.size(1)))},
                  q_THD.options().dtype(at::kFloat));
    const cuda::AttentionBackward arguments{
        .in = Arguments(aligned),
        .out = RowsOf(out),
        .grad_out = RowsOf(grad_out),
        .out_element = CudaElement(out),
        .lse = lse_TH.const_data_ptr<float>(),
        .grad_lse = grad_lse_TH.defined() ? grad_lse_TH.const_data_ptr<float>() : nullptr,
        .grad_q = RowsOf(result.q_THD),
        .grad_k = RowsOf(result.k_SHD),
        .grad_v = RowsOf(result.v_SHD),
        .grad_element = CudaElement(type),
        .workspace = workspace.mutable_data_ptr<float>()};
    if (Launched(osler_attention_backward(&arguments, Wanted(), CudaStreamOf(q_THD)),
                 "attention backward"))
      return result;
  }
  return IntervalAttentionBackwardAten(grad, input, output, type, Products());
}

}  // namespace osler
