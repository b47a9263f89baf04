// One entry a kernel and element type: each is compiled in a file of its own, since a kernel takes
// seconds a head width.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention_kernels.h"

namespace osler::cuda::sm80 {

template <int kWidth>
using Width = std::integral_constant<int, kWidth>;

// With the least head width that kernels are built for and that holds this one: the rest is 0.
template <class Function>
int ForWidth(int width, Function function) {
  if (width <= 64) return function(Width<64>());
  if (width <= 80) return function(Width<80>());
  if (width <= 96) return function(Width<96>());
  if (width <= 128) return function(Width<128>());
  return function(Width<256>());
}

template <Element kElement>
int Forward(const AttentionForward& p, cudaStream_t stream);
template <Element kElement>
int BackwardKeys(const AttentionBackward& p, cudaStream_t stream);  // grad_k and grad_v
template <Element kElement>
int BackwardQueries(const AttentionBackward& p, cudaStream_t stream);  // grad_q

}  // namespace osler::cuda::sm80
