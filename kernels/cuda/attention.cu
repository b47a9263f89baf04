#include "kernels/cuda/attention.h"

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/entry.cuh"

namespace osler::cuda {
namespace {

// The first family that is wanted, is of this device, and takes the call.
template <class Arguments>
int Choose(AttentionKernels wanted, int (*sm90)(const Arguments&, cudaStream_t),
           int (*sm80)(const Arguments&, cudaStream_t), const Arguments& arguments,
           cudaStream_t stream) {
  int result = kUnsupported;
  if (wanted != AttentionKernels::kSm80 && ComputeCapabilityMajor() == 9)
    result = sm90(arguments, stream);
  if (result != kUnsupported || wanted == AttentionKernels::kSm90) return result;
  return sm80(arguments, stream);
}

}  // namespace
}  // namespace osler::cuda

int osler_attention_forward(const osler::cuda::AttentionForward* arguments,
                            osler::cuda::AttentionKernels kernels, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  return Choose(kernels, AttentionForwardSm90, AttentionForwardSm80, *arguments,
                static_cast<cudaStream_t>(stream));
}

int osler_attention_backward(const osler::cuda::AttentionBackward* arguments,
                             osler::cuda::AttentionKernels kernels, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  auto* on = static_cast<cudaStream_t>(stream);
  const cudaError_t prepared = AttentionBackwardPrepare(*arguments, on);
  if (prepared != cudaSuccess) return prepared;
  return Choose(kernels, AttentionBackwardSm90, AttentionBackwardSm80, *arguments, on);
}

int64_t osler_attention_workspace(int32_t queries, int32_t heads) {
  return 2 * heads * osler::cuda::PaddedQueries(queries);
}
