#include "kernels/cuda/sm80/backward_keys_kernel.cuh"
#include "kernels/cuda/sm80/families.h"

namespace osler::cuda::sm80 {

template <>
int BackwardKeys<Element::kBf16>(const AttentionBackward& p, cudaStream_t stream) {
  return ForWidth(p.in.width, [&]<int kWidth>(Width<kWidth>) {
    return LaunchBackwardKeys<Element::kBf16, kWidth>(p, stream);
  });
}

}  // namespace osler::cuda::sm80
