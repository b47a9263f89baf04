#include "kernels/gated_activation_cpu.h"

#include <ATen/ops/empty.h>

#include "kernels/cpu_rows.h"
#include "kernels/gated_activation_isa.h"

namespace osler {
namespace {

const GatedKernels& Kernels(const at::Tensor& x, CpuIsa isa) {
  const auto i = static_cast<size_t>(ElementOf(x));
  return SelectIsa(isa, portable::kGatedKernels[i], avx2::kGatedKernels[i],
                   avx512::kGatedKernels[i], avx512_bf16::kGatedKernels[i], amx::kGatedKernels[i]);
}

at::Tensor Like(const at::Tensor& x) { return at::empty(x.sizes(), x.options()); }

}  // namespace

at::Tensor GatedActivationForwardCpu(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                     GateKind kind, CpuIsa isa) {
  at::Tensor y_TF = Like(gate_TF);
  const int64_t rows = gate_TF.size(0), width = gate_TF.size(1);
  const GatedForward in{.gate = gate_TF.const_data_ptr(),
                        .up = up_TF.const_data_ptr(),
                        .gate_stride = gate_TF.stride(0),
                        .up_stride = up_TF.stride(0),
                        .y = y_TF.mutable_data_ptr(),
                        .width = width,
                        .kind = kind};
  const GatedKernels& kernels = Kernels(gate_TF, isa);
  ForRows(rows, width, [&](int64_t from, int64_t to) { kernels.forward(in, from, to); });
  return y_TF;
}

GatedGradients GatedActivationBackwardCpu(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                          const at::Tensor& up_TF, GateKind kind, CpuIsa isa) {
  GatedGradients out{Like(gate_TF), Like(up_TF)};
  const int64_t rows = gate_TF.size(0), width = gate_TF.size(1);
  const GatedBackward in{.grad = grad_TF.const_data_ptr(),
                         .gate = gate_TF.const_data_ptr(),
                         .up = up_TF.const_data_ptr(),
                         .gate_stride = gate_TF.stride(0),
                         .up_stride = up_TF.stride(0),
                         .grad_gate = out.gate_TF.mutable_data_ptr(),
                         .grad_up = out.up_TF.mutable_data_ptr(),
                         .width = width,
                         .kind = kind};
  const GatedKernels& kernels = Kernels(gate_TF, isa);
  ForRows(rows, width, [&](int64_t from, int64_t to) { kernels.backward(in, from, to); });
  return out;
}

}  // namespace osler
