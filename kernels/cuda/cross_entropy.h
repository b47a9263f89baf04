// Softmax and cross-entropy of rows of logits on CUDA; the products around them are the caller's.
//
// kernels/linear_cross_entropy.h says what is computed; softmax and sums are fp32. As in
// kernels/cuda/rms_norm.h: device pointers, deterministic, asynchronous, thread-safe.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"  // Element, kUnsupported

namespace osler::cuda {

struct CrossEntropyRows {
  void* logits;            // [rows, width], contiguous
  const int64_t* targets;  // [rows], in the whole vocabulary; negative: none
  // [rows], the SoftmaxTerms: the largest z, Σ e^(z − max), and the target's z (0 when it stands
  // in another slice).
  float* max;
  float* sum;
  float* target;
  float* loss;  // [rows], −log p(target), 0 without a target; or null
  int64_t rows;
  int64_t begin;         // the first column's place in the whole vocabulary
  int32_t width;         // less than 2^30
  float soft_cap;        // z becomes soft_cap · tanh(z / soft_cap); 0: it stays
  float gradient_scale;  // of what is put in the logits' place
  Element element;
};

}  // namespace osler::cuda

extern "C" {
// Each returns 0, a cudaError_t, or kUnsupported.
// Writes max, sum and target (and loss, right if the slice is the vocabulary).
int osler_cross_entropy_terms(const osler::cuda::CrossEntropyRows* arguments, void* stream);
// Puts gradient_scale · (softmax − one-hot), through the cap, in the logits' place, given the whole
// vocabulary's max and sum. Zero for rows without a target.
int osler_cross_entropy_gradient(const osler::cuda::CrossEntropyRows* arguments, void* stream);
// Both, for the whole vocabulary: the logits are read once where a row fits in the registers of a
// cluster. The terms of a row without a target may be 0, 1, 0.
int osler_cross_entropy(const osler::cuda::CrossEntropyRows* arguments, void* stream);
}
