// The families of attention kernels that attention.cu chooses from; inside kernels/cuda/ only.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention.h"

namespace osler::cuda {

// Rows of the workspace are padded to this many queries, with lse +∞ and delta 0: e^(s − lse) is 0
// there, so that a tile that reaches past the last query needs no other test.
inline constexpr int kQueryPadding = 128;
constexpr int64_t PaddedQueries(int64_t queries) {
  return (queries + kQueryPadding - 1) / kQueryPadding * kQueryPadding;
}

// The workspace: two planes [heads][PaddedQueries] of fp32, lse · log2(e), then
// delta = Σ_d out · grad_out − grad_lse. The lse of a row that sees nothing is +∞ here.
cudaError_t AttentionBackwardPrepare(const AttentionBackward& arguments, cudaStream_t stream);

// mma.sync kernels, from sm_80 on: every width that is a multiple of 8 up to 256.
int AttentionForwardSm80(const AttentionForward& arguments, cudaStream_t stream);
int AttentionBackwardSm80(const AttentionBackward& arguments,
                          cudaStream_t stream);  // after Prepare

// wgmma kernels, sm_90a alone; kUnsupported for what they lack.
int AttentionForwardSm90(const AttentionForward& arguments, cudaStream_t stream);
int AttentionBackwardSm90(const AttentionBackward& arguments,
                          cudaStream_t stream);  // after Prepare

}  // namespace osler::cuda
