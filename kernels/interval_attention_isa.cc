#include "kernels/interval_attention_backward_isa.h"
#include "kernels/interval_attention_forward_isa.h"
#include "kernels/interval_attention_tiles.h"

namespace osler::OSLER_ISA {
namespace {

template <class Kind>
int64_t ForwardScratchBytes(int64_t width) {
  return typename ForwardPass<Kind>::Scratch(width, nullptr).bytes;
}

template <class Kind>
void Forward(const AttentionArguments& args, const AttentionBlock& block, std::byte* scratch) {
  ForwardPass<Kind>(args, block, scratch).Run();
}

template <class Kind>
int64_t BackwardScratchBytes(int64_t width) {
  return typename BackwardPass<Kind>::Scratch(width, nullptr).bytes;
}

template <class Kind>
void Backward(const AttentionArguments& args, const AttentionBlock& block, std::byte* scratch) {
  BackwardPass<Kind>(args, block, scratch).Run();
}

template <class Kind>
constexpr AttentionKernels kKernels = {ForwardScratchBytes<Kind>, Forward<Kind>,
                                       BackwardScratchBytes<Kind>, Backward<Kind>};

#if defined(__AVX512BF16__)
using Bf16Kind = PairKind;
#else
using Bf16Kind = PlainKind<BFloat16, float, Digits::kFew>;
#endif

}  // namespace

const AttentionKernels& AttentionKernelsFor(AttentionType type) {
  switch (type) {
    case AttentionType::kFp64: return kKernels<PlainKind<double, double, Digits::kFull>>;
    case AttentionType::kFp32: return kKernels<PlainKind<float, float, Digits::kFull>>;
    case AttentionType::kBf16: break;
  }
  return kKernels<Bf16Kind>;
}

}  // namespace osler::OSLER_ISA
