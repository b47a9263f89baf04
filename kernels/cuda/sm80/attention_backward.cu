#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm80/families.h"
#include "kernels/cuda/sm80/limits.h"

namespace osler::cuda {
namespace {

template <Element kElement>
int Backward(const AttentionBackward& arguments, cudaStream_t stream) {
  const int result = sm80::BackwardKeys<kElement>(arguments, stream);
  return result != cudaSuccess ? result : sm80::BackwardQueries<kElement>(arguments, stream);
}

}  // namespace

int AttentionBackwardSm80(const AttentionBackward& arguments, cudaStream_t stream) {
  if (!sm80::Serves(arguments.in) || !sm80::FitsStride(arguments.grad_out)) return kUnsupported;
  return arguments.in.element == Element::kBf16 ? Backward<Element::kBf16>(arguments, stream)
                                                : Backward<Element::kFp16>(arguments, stream);
}

}  // namespace osler::cuda
