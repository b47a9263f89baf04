// GatedActivation without autograd, on the CPU. Values are [T, F] with F dense.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu_isa.h"
#include "kernels/gate_kind.h"

namespace osler {

at::Tensor GatedActivationForwardCpu(const at::Tensor& gate_TF, const at::Tensor& up_TF,
                                     GateKind kind, CpuIsa isa = BestCpuIsa());

struct GatedGradients {
  at::Tensor gate_TF, up_TF;
};
// grad_TF is contiguous.
GatedGradients GatedActivationBackwardCpu(const at::Tensor& grad_TF, const at::Tensor& gate_TF,
                                          const at::Tensor& up_TF, GateKind kind,
                                          CpuIsa isa = BestCpuIsa());

}  // namespace osler
