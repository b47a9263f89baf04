#include "kernels/cuda/sm90/backward_keys_narrow.cuh"
#include "kernels/cuda/sm90/backward_keys_wide.cuh"
#include "kernels/cuda/sm90/instances.cuh"

namespace osler::cuda::sm90 {

int LaunchBackwardKeys(const AttentionBackward& arguments, cudaStream_t stream) {
  return ForElementAndCap(arguments.in, [&](auto element, auto capped) {
    using T = decltype(element);
    constexpr bool kSoftCap = decltype(capped)::value;
    const int width = arguments.in.width;
    if (width <= 64) return LaunchNarrowKeys<T, kSoftCap, 64, 96, 4>(arguments, stream);
    if (width <= 128) return LaunchNarrowKeys<T, kSoftCap, 128, 64, 3>(arguments, stream);
    return LaunchWideKeys<T, kSoftCap>(arguments, stream);
  });
}

}  // namespace osler::cuda::sm90
