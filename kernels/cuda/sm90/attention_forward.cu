#include "kernels/cuda/attention_kernels.h"

namespace osler::cuda {

int AttentionForwardSm90(const AttentionForward&, cudaStream_t) { return kUnsupported; }

}  // namespace osler::cuda
