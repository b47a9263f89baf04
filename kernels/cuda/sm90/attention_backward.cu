#include "kernels/cuda/attention_kernels.h"

namespace osler::cuda {

int AttentionBackwardSm90(const AttentionBackward&, cudaStream_t) { return kUnsupported; }

}  // namespace osler::cuda
