// The CPU form of IntervalAttention without autograd. docs: interval_attention.h,
// docs/attention.md.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu_isa.h"
#include "kernels/interval_attention.h"

namespace osler {

struct IntervalAttentionInput {
  at::Tensor q_THD, k_SHD, v_SHD;  // one dtype, last dimension dense
  MaskIntervals mask;
  AttentionOptions options;
};

// `isa`: at most what the machine has.
AttentionOutput IntervalAttentionForwardCpu(const IntervalAttentionInput& input, CpuIsa isa);

struct IntervalAttentionGradients {
  at::Tensor q_THD, k_SHD, v_SHD;
};
// grad.lse_TH may be undefined: zero.
IntervalAttentionGradients IntervalAttentionBackwardCpu(const AttentionOutput& grad,
                                                        const IntervalAttentionInput& input,
                                                        const AttentionOutput& output, CpuIsa isa);

}  // namespace osler
