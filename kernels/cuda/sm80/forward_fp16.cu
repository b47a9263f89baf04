#include "kernels/cuda/sm80/families.h"
#include "kernels/cuda/sm80/forward_kernel.cuh"

namespace osler::cuda::sm80 {

template <>
int Forward<Element::kFp16>(const AttentionForward& p, cudaStream_t stream) {
  return ForWidth(p.in.width, [&]<int kWidth>(Width<kWidth>) {
    return LaunchForward<Element::kFp16, kWidth>(p, stream);
  });
}

}  // namespace osler::cuda::sm80
