#include "kernels/cuda/sm90/attention_forward_launch.cuh"

namespace osler::cuda::sm90 {

int LaunchForward128(const AttentionForward& arguments, cudaStream_t stream) {
  return LaunchForwardOfShape<128, 128, 128, 2, 2, Overlap::kWeights>(arguments, stream);
}

}  // namespace osler::cuda::sm90
