#include "kernels/cuda/sm90/backward_queries.cuh"

namespace osler::cuda::sm90 {
namespace {

template <class T, bool kSoftCap>
int Launch(const AttentionBackward& arguments, cudaStream_t stream) {
  const int width = arguments.in.width;
  if (width <= 64) return LaunchQueries<T, kSoftCap, 64, 128, 3, 3, Turns>(arguments, stream);
  if (width <= 128) return LaunchQueries<T, kSoftCap, 128, 96, 3, 2, Turns>(arguments, stream);
  return LaunchQueries<T, kSoftCap, 256, 64, 2, 1, NoTurns>(arguments, stream);
}

template <class T>
int Launch(const AttentionBackward& arguments, cudaStream_t stream) {
  return arguments.in.soft_cap > 0.0f ? Launch<T, true>(arguments, stream)
                                      : Launch<T, false>(arguments, stream);
}

}  // namespace

int LaunchBackwardQueries(const AttentionBackward& arguments, cudaStream_t stream) {
  return arguments.in.element == Element::kBf16 ? Launch<__nv_bfloat16>(arguments, stream)
                                                : Launch<__half>(arguments, stream);
}

}  // namespace osler::cuda::sm90
