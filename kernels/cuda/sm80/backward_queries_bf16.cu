#include "kernels/cuda/sm80/backward_queries_kernel.cuh"
#include "kernels/cuda/sm80/families.h"

namespace osler::cuda::sm80 {

template <>
int BackwardQueries<Element::kBf16>(const AttentionBackward& p, cudaStream_t stream) {
  return ForWidth(p.in.width, [&]<int kWidth>(Width<kWidth>) {
    return LaunchBackwardQueries<Element::kBf16, kWidth>(p, stream);
  });
}

}  // namespace osler::cuda::sm80
