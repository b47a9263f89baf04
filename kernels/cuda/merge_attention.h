// Attention over parts of the keys to attention over all of them, on CUDA.
//
// kernels/merge_attention.h says what is computed. As in kernels/cuda/rms_norm.h: device pointers,
// deterministic, asynchronous, thread-safe.
#pragma once

#include <cstdint>

namespace osler::cuda {

struct MergeAttention {
  const float* part_out;  // [rows, width], contiguous: a row is a query's head
  const float* part_lse;  // [rows]
  float* out;             // updated in place, like lse
  float* lse;
  int64_t rows;
  int32_t width;
};

}  // namespace osler::cuda

extern "C" {
int osler_merge_attention(const osler::cuda::MergeAttention* arguments, void* stream);
}
