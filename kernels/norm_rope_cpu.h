// NormRope and ApplyRope without autograd, on the CPU. Values are [T, H, D] with D dense, tables
// fp32 [T, D].
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu_isa.h"
#include "kernels/rms_norm_cpu.h"
#include "kernels/rope.h"

namespace osler {

at::Tensor RopeForwardCpu(const at::Tensor& x_THD, const RopeTables& tables,
                          CpuIsa isa = BestCpuIsa());
at::Tensor RopeBackwardCpu(const at::Tensor& grad_THD, const RopeTables& tables,
                           CpuIsa isa = BestCpuIsa());

NormOutput NormRopeForwardCpu(const at::Tensor& x_THD, const at::Tensor& weight_D,
                              const RopeTables& tables, const NormOptions& norm);
NormGradients NormRopeBackwardCpu(const at::Tensor& grad_THD, const NormInputs& inputs,
                                  const RopeTables& tables, WeightGradient weight_gradient,
                                  const NormOptions& norm);

}  // namespace osler
