// What the kernels of this folder serve.
#pragma once

#include "kernels/cuda/attention.h"

namespace osler::cuda::sm80 {

// Strides of tokens are 32 bits of bytes in the kernels.
inline bool FitsStride(const Rows& rows) {
  return rows.token_stride >= 0 && rows.token_stride < (int64_t{1} << 30);
}

inline bool Serves(const AttentionInput& in) {
  return in.element != Element::kFp32 && in.width > 0 && in.width <= 256 && in.width % 8 == 0 &&
         in.scale >= 0 && in.key_heads > 0 && in.heads % in.key_heads == 0 && FitsStride(in.q) &&
         FitsStride(in.k) && FitsStride(in.v);
}

}  // namespace osler::cuda::sm80
