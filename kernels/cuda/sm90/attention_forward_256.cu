#include "kernels/cuda/sm90/attention_forward_launch.cuh"

namespace osler::cuda::sm90 {

int LaunchForward256(const AttentionForward& arguments, cudaStream_t stream) {
  return LaunchForwardOfShape<256, 80, 64, 2, 2, Overlap::kSoftmax>(arguments, stream);
}

}  // namespace osler::cuda::sm90
