#include "kernels/row_kernels.h"

#include "kernels/cuda/rows_cuda.h"

namespace osler {
namespace {

constexpr RowKernels kCpu = {
    .norms = {.rms_norm = RmsNormForward,
              .add_rms_norm = AddRmsNormForward,
              .rms_norm_add = RmsNormAddForward,
              .rms_norm_backward = RmsNormBackward,
              .rope = [](const at::Tensor& x_THD,
                         const RopeTables& tables) { return RopeForwardCpu(x_THD, tables); },
              .rope_backward =
                  [](const at::Tensor& grad_THD, const RopeTables& tables) {
                    return RopeBackwardCpu(grad_THD, tables);
                  },
              .norm_rope = NormRopeForwardCpu,
              .norm_rope_backward = NormRopeBackwardCpu},
    .gated = [](const at::Tensor& gate_TF, const at::Tensor& up_TF,
                GateKind kind) { return GatedActivationForwardCpu(gate_TF, up_TF, kind); },
    .gated_backward =
        [](const at::Tensor& grad_TF, const at::Tensor& gate_TF, const at::Tensor& up_TF,
           GateKind kind) { return GatedActivationBackwardCpu(grad_TF, gate_TF, up_TF, kind); },
    .cross_entropy_terms = CrossEntropyTermsCpu,
    .cross_entropy_gradient = CrossEntropyGradientCpu,
    .cross_entropy = CrossEntropyCpu};

}  // namespace

const RowKernels& RowKernelsFor(const at::Tensor& x) {
  return x.is_cpu() ? kCpu : CudaRowKernels();
}

}  // namespace osler
