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
// Over a part of the keys, for MergeAttention: out is not rounded to q's type (fp64 for fp64, else
// fp32).
AttentionOutput IntervalAttentionPartCpu(const IntervalAttentionInput& input, CpuIsa isa);

struct IntervalAttentionGradients {
  at::Tensor q_THD, k_SHD, v_SHD;
};
// grad.lse_TH may be undefined: zero. With the output and lse of attention to more keys than the
// input has, the gradients are those through the input's keys: over parts of the keys they add up.
IntervalAttentionGradients IntervalAttentionBackwardCpu(const AttentionOutput& grad,
                                                        const IntervalAttentionInput& input,
                                                        const AttentionOutput& output, CpuIsa isa);
// The same, not rounded to q's type.
IntervalAttentionGradients IntervalAttentionGradientSumsCpu(const AttentionOutput& grad,
                                                            const IntervalAttentionInput& input,
                                                            const AttentionOutput& output,
                                                            CpuIsa isa);

}  // namespace osler
