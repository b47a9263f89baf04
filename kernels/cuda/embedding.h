// The gradient of an embedding's weight on CUDA.
//
// As in kernels/cuda/rms_norm.h: device pointers, deterministic, asynchronous, thread-safe. Rows of
// one id are summed in fp32 in the order of `order`, and added to the weight's gradient once.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"  // Element, kUnsupported

namespace osler::cuda {

struct EmbeddingBackward {
  const void* grad;      // [tokens, width]
  const int64_t* ids;    // [tokens], ascending
  const int64_t* order;  // [tokens]: ids[i] is the id of row order[i] of grad
  void* grad_weight;     // [rows, width]: is added to
  float* workspace;      // osler_embedding_workspace() floats
  int64_t tokens;
  int64_t begin, rows;  // ids outside [begin, begin + rows) are left out
  int32_t width;
  float scale;  // of grad
  Element element, weight_element;
};

}  // namespace osler::cuda

extern "C" {
int osler_embedding_backward(const osler::cuda::EmbeddingBackward* arguments, void* stream);
int64_t osler_embedding_workspace(int64_t tokens, int32_t width);
}
