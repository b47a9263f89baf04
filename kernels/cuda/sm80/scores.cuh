// From products q·k to exponents of 2.
#pragma once

#include "kernels/cuda/sm80/instructions.cuh"

namespace osler::cuda::sm80 {

// A score is factor · x in units of log 2, where x is the product q·k, or, with a soft cap c,
// tanh(inner · q·k).
struct ScoreScale {
  float factor, inner;
};

// scale > 0 or, as good as nothing, 0: −∞ times 0 would not be a number.
inline ScoreScale MakeScoreScale(const AttentionInput& in) {
  constexpr float kLeast = 1e-30f;
  if (in.soft_cap == 0) return {std::max(in.scale * kLog2E, kLeast), 0};
  return {in.soft_cap * kLog2E, in.scale / in.soft_cap};
}

template <int kBlocks, int kBlockColumns>
__device__ __forceinline__ void Cap(float (&scores)[kBlocks][kBlockColumns][4], float inner) {
#pragma unroll
  for (int i = 0; i < kBlocks; ++i)
#pragma unroll
    for (int j = 0; j < kBlockColumns; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[i][j][e] = Tanh(scores[i][j][e] * inner);
}

// The derivative of the tanh x; 0 for a hidden score's −∞, which would not give a number.
__device__ __forceinline__ float CapSlope(float x) { return fmaxf(fmaf(-x, x, 1.0f), 0.0f); }

}  // namespace osler::cuda::sm80
