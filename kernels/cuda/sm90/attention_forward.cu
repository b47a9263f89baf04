#include <algorithm>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm90/attention_forward_launch.h"

namespace osler::cuda {

int AttentionForwardSm90(const AttentionForward& arguments, cudaStream_t stream) {
  const AttentionInput& in = arguments.in;
  if (in.width % 8 != 0 || in.width > 256 || in.scale <= 0 || in.element == Element::kFp32) {
    return kUnsupported;
  }
  if (in.queries == 0 || in.heads == 0) return cudaSuccess;
  if (in.width <= 64) return sm90::LaunchForward64(arguments, stream);
  if (in.width <= 128) return sm90::LaunchForward128(arguments, stream);
  return sm90::LaunchForward256(arguments, stream);
}

}  // namespace osler::cuda
