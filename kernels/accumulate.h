// Sums in a wider dtype than what is added.
#pragma once

#include <ATen/core/Tensor.h>

namespace osler {

// sum += value, of one shape; bf16 into fp32 in one pass, where ATen widens a copy first. Same bits
// for any number of threads. Not differentiable.
void Accumulate(at::Tensor& sum, const at::Tensor& value);

}  // namespace osler
