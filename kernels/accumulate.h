// Sums in a wider dtype than what is added.
#pragma once

#include <ATen/core/Tensor.h>

namespace osler {

// sum += value, of one shape; bf16 into fp32 in one pass, where ATen widens a copy first. Same bits
// for any number of threads. Not differentiable.
void Accumulate(at::Tensor& sum, const at::Tensor& value);

// sum_EF += aᵀ b for a_TE, b_TF: a weight's gradient. A product narrower than the sum is made a
// slice of E at a time, so that it stays in its core's cache. Same bits for the same threads. Not
// differentiable.
void AccumulateProduct(at::Tensor& sum_EF, const at::Tensor& a_TE, const at::Tensor& b_TF);

// sum_VD[ids_T[t]] += rows_TD[t] for every t: an embedding's gradient. Same bits for the same
// threads. Not differentiable.
void AddRows(at::Tensor& sum_VD, const at::Tensor& ids_T, const at::Tensor& rows_TD);

}  // namespace osler
