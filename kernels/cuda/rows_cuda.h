// The row kernels on CUDA tensors, without autograd: Osler's own (rms_norm.h, norm_rope.h, …), or
// AtenRowKernels() for types and shapes that they lack. Deterministic.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/interval_attention.h"
#include "kernels/row_kernels.h"

namespace osler {

const RowKernels& CudaRowKernels();
NormKernels CudaNormKernels();  // those of CudaRowKernels

void MergeAttentionCuda(const AttentionOutput& part, const AttentionOutput& into);
// sum_VD[ids] += rows_TD, ids of one value in their order.
void AddRowsCuda(at::Tensor& sum_VD, const at::Tensor& ids_T, const at::Tensor& rows_TD);

}  // namespace osler
