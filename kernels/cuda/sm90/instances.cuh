// From what a call says to the kernels' template parameters.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "kernels/cuda/attention.h"

namespace osler::cuda::sm90 {

// f(a value of the element's type, std::bool_constant: whether there is a soft cap).
template <class F>
int ForElementAndCap(const AttentionInput& in, F f) {
  const auto for_cap = [&](auto element) {
    return in.soft_cap > 0 ? f(element, std::true_type{}) : f(element, std::false_type{});
  };
  return in.element == Element::kBf16 ? for_cap(__nv_bfloat16{}) : for_cap(__half{});
}

}  // namespace osler::cuda::sm90
