#include "kernels/cuda/sm90/backward_queries.cuh"
#include "kernels/cuda/sm90/instances.cuh"

namespace osler::cuda::sm90 {

int LaunchBackwardQueries(const AttentionBackward& arguments, cudaStream_t stream) {
  return ForElementAndCap(arguments.in, [&](auto element, auto capped) {
    using T = decltype(element);
    constexpr bool kSoftCap = decltype(capped)::value;
    const int width = arguments.in.width;
    if (width <= 64) return LaunchQueries<T, kSoftCap, 64, 128, 3, 3, Turns>(arguments, stream);
    if (width <= 128) return LaunchQueries<T, kSoftCap, 128, 96, 3, 2, Turns>(arguments, stream);
    return LaunchQueries<T, kSoftCap, 256, 64, 2, 1, NoTurns>(arguments, stream);
  });
}

}  // namespace osler::cuda::sm90
