#include "kernels/cuda/attention.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention_kernels.h"

namespace osler::cuda {
namespace {

bool HasHopperInstructions() {
  int device = 0;
  int major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major == 9;
}

bool MayUseSm90(AttentionKernels kernels) {
  return kernels != AttentionKernels::kSm80 && HasHopperInstructions();
}

}  // namespace
}  // namespace osler::cuda

using osler::cuda::AttentionKernels;

int osler_attention_forward(const osler::cuda::AttentionForward* arguments,
                            AttentionKernels kernels, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  if (osler::cuda::MayUseSm90(kernels)) {
    const int result = osler::cuda::AttentionForwardSm90(*arguments, on);
    if (result != osler::cuda::kUnsupported || kernels == AttentionKernels::kSm90) return result;
  }
  if (kernels == AttentionKernels::kSm90) return osler::cuda::kUnsupported;
  return osler::cuda::AttentionForwardSm80(*arguments, on);
}

int osler_attention_backward(const osler::cuda::AttentionBackward* arguments,
                             AttentionKernels kernels, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  const cudaError_t prepared = osler::cuda::AttentionBackwardPrepare(*arguments, on);
  if (prepared != cudaSuccess) return prepared;
  if (osler::cuda::MayUseSm90(kernels)) {
    const int result = osler::cuda::AttentionBackwardSm90(*arguments, on);
    if (result != osler::cuda::kUnsupported || kernels == AttentionKernels::kSm90) return result;
  }
  if (kernels == AttentionKernels::kSm90) return osler::cuda::kUnsupported;
  return osler::cuda::AttentionBackwardSm80(*arguments, on);
}

int64_t osler_attention_workspace(int32_t queries, int32_t heads) {
  return 2 * heads * osler::cuda::PaddedQueries(queries);
}
