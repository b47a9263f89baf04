// The CPU form of IntervalAttention without autograd: ATen's flash kernel on each piece of the
// mask.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/interval_attention.h"

namespace osler {

struct IntervalAttentionOutput {
  at::Tensor out_THD;
  std::vector<at::Tensor> lse;  // log-sum-exp by piece of PlanIntervals, undefined for empty rows
};
IntervalAttentionOutput IntervalAttentionForwardCpu(const at::Tensor& q_THD,
                                                    const at::Tensor& k_SHD,
                                                    const at::Tensor& v_SHD,
                                                    const MaskIntervals& mask,
                                                    const AttentionOptions& options);

struct IntervalAttentionGradients {
  at::Tensor q_THD, k_SHD, v_SHD;
};
IntervalAttentionGradients IntervalAttentionBackwardCpu(
    const at::Tensor& grad_THD, const at::Tensor& q_THD, const at::Tensor& k_SHD,
    const at::Tensor& v_SHD, const IntervalAttentionOutput& forward, const MaskIntervals& mask,
    const AttentionOptions& options);

}  // namespace osler
