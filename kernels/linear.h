// x Wᵀ + b, with a kernel of its own for the few rows of a decoding pass.
//
// For a row or a handful, the product is a walk through the weights: what counts is to read each of
// them once, at the speed of memory, and to widen bf16 on the way. General matrix products re-order
// the weights first.
#pragma once

#include <ATen/core/Tensor.h>

namespace osler {

// x is [T, D], weight_ED is [E, D], bias_E may be undefined; all of one dtype (fp32, fp64, bf16).
// Returns [T, E]; bf16 is summed in fp32. Differentiable through autograd. Without gradients and
// for at most 16 rows of fp32 or bf16, a row's bits do not depend on the other rows.
// A weight on a device whose .grad() is defined has its gradient added there, in the type of that
// sum and within the product, and autograd is given none.
// Throws c10::Error on other shapes. Thread-safe.
at::Tensor Linear(const at::Tensor& x_TD, const at::Tensor& weight_ED, const at::Tensor& bias_E);

}  // namespace osler
