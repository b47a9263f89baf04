#include "kernels/cuda/attention_kernels.h"

namespace osler::cuda {

cudaError_t AttentionBackwardPrepare(const AttentionBackward&, cudaStream_t) { return cudaSuccess; }

}  // namespace osler::cuda
