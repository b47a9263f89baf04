#include "kernels/interval_attention_dispatch.h"

#include "kernels/cpu_isa.h"
#include "kernels/cpu_rows.h"
#include "kernels/cuda/interval_attention_cuda.h"

namespace osler {

AttentionOutput IntervalAttentionForward(const IntervalAttentionInput& input) {
  if (input.q_THD.is_cpu()) return IntervalAttentionForwardCpu(input, BestCpuIsa());
  return IntervalAttentionForwardCuda(input, input.q_THD.scalar_type());
}

AttentionOutput IntervalAttentionPart(const IntervalAttentionInput& input) {
  if (input.q_THD.is_cpu()) return IntervalAttentionPartCpu(input, BestCpuIsa());
  return IntervalAttentionForwardCuda(input, SumTypeOf(input.q_THD));
}

IntervalAttentionGradients IntervalAttentionBackward(const AttentionOutput& grad,
                                                     const IntervalAttentionInput& input,
                                                     const AttentionOutput& output) {
  if (input.q_THD.is_cpu()) return IntervalAttentionBackwardCpu(grad, input, output, BestCpuIsa());
  return IntervalAttentionBackwardCuda(grad, input, output, input.q_THD.scalar_type());
}

IntervalAttentionGradients IntervalAttentionGradientSums(const AttentionOutput& grad,
                                                         const IntervalAttentionInput& input,
                                                         const AttentionOutput& output) {
  if (input.q_THD.is_cpu())
    return IntervalAttentionGradientSumsCpu(grad, input, output, BestCpuIsa());
  return IntervalAttentionBackwardCuda(grad, input, output, SumTypeOf(input.q_THD));
}

}  // namespace osler
