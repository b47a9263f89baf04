#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/sm80/families.h"
#include "kernels/cuda/sm80/limits.h"

namespace osler::cuda {

int AttentionForwardSm80(const AttentionForward& arguments, cudaStream_t stream) {
  if (!sm80::Serves(arguments.in)) return kUnsupported;
  return arguments.in.element == Element::kBf16 ? sm80::Forward<Element::kBf16>(arguments, stream)
                                                : sm80::Forward<Element::kFp16>(arguments, stream);
}

}  // namespace osler::cuda
