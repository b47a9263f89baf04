#include "kernels/cuda/sm90/attention_forward_launch.cuh"

namespace osler::cuda::sm90 {

int LaunchForward64(const AttentionForward& arguments, cudaStream_t stream) {
  return LaunchForwardOfShape<64, 128, 128, 3, 2, Overlap::kNone>(arguments, stream);
}

}  // namespace osler::cuda::sm90
