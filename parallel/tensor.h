// Tensor parallelism with sequence parallelism (Korthikanti et al. 2022, "Reducing Activation
// Recomputation in Large Transformer Models"), as two differentiable functions.
//
// Between the parts of a layer each rank of the tensor axis has its own rows, T / ranks of them in
// rank order, so that norms and sums are done once. Before weights that are cut by column the rows
// are gathered; what weights that are cut by row give is summed and dealt out again. Each
// function's gradient is the other.
//
// `tensor` is not owned, may be nullptr or a group of one (x is returned as it is), and must
// outlive the autograd graph. All ranks call the same functions in the same order, in backward too:
// graphs of one shape see to that. Tensors are of fp32, fp64 or bf16 (summed in fp32, rounded
// once); results are contiguous. Errors are those of Communicator.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"

namespace osler {

// x_RD [T / ranks, …], as many rows on every rank → all ranks' rows [T, …].
at::Tensor GatherTokens(Communicator* tensor, const at::Tensor& x_RD);

// x_TD [T, …], T a multiple of the ranks → this rank's rows [T / ranks, …] of the sum over ranks.
at::Tensor ScatterSum(Communicator* tensor, const at::Tensor& x_TD);

}  // namespace osler
