// Interval attention of ATen's operations, on any device: what a device without kernels for a shape
// runs, and the reference that its kernels are compared with. Scores of some heads and queries
// against all keys exist at once, within kAtenScoreBytes (or one query's).
#pragma once

#include <cstdint>

#include "kernels/interval_attention_cpu.h"

namespace osler {

inline constexpr int64_t kAtenScoreBytes = int64_t{512} << 20;

// What matrix products of bf16 values take: bf16 with fp32 sums, or values widened to fp32 first.
enum class AtenProducts { kNarrow, kWide };

// `out` is the type of the output: q's, or that of sums.
AttentionOutput IntervalAttentionForwardAten(const IntervalAttentionInput& input,
                                             at::ScalarType out, AtenProducts products);
// As IntervalAttentionBackwardCpu; `type` is that of the gradients: q's, or that of sums.
IntervalAttentionGradients IntervalAttentionBackwardAten(const AttentionOutput& grad,
                                                         const IntervalAttentionInput& input,
                                                         const AttentionOutput& output,
                                                         at::ScalarType type,
                                                         AtenProducts products);

}  // namespace osler
