#include "kernels/cuda/attention_kernels.h"

namespace osler::cuda {

int AttentionForwardSm80(const AttentionForward&, cudaStream_t) { return kUnsupported; }

}  // namespace osler::cuda
