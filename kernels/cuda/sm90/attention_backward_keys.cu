#include "kernels/cuda/sm90/backward_keys_narrow.cuh"
#include "kernels/cuda/sm90/backward_keys_wide.cuh"

namespace osler::cuda::sm90 {
namespace {

template <class T, bool kSoftCap>
int Launch(const AttentionBackward& arguments, cudaStream_t stream) {
  const int width = arguments.in.width;
  if (width <= 64) return LaunchNarrowKeys<T, kSoftCap, 64, 96, 4>(arguments, stream);
  if (width <= 128) return LaunchNarrowKeys<T, kSoftCap, 128, 64, 3>(arguments, stream);
  return LaunchWideKeys<T, kSoftCap>(arguments, stream);
}

template <class T>
int Launch(const AttentionBackward& arguments, cudaStream_t stream) {
  return arguments.in.soft_cap > 0.0f ? Launch<T, true>(arguments, stream)
                                      : Launch<T, false>(arguments, stream);
}

}  // namespace

int LaunchBackwardKeys(const AttentionBackward& arguments, cudaStream_t stream) {
  return arguments.in.element == Element::kBf16 ? Launch<__nv_bfloat16>(arguments, stream)
                                                : Launch<__half>(arguments, stream);
}

}  // namespace osler::cuda::sm90
