// One block forward and back. Autograd lives only here: a block gets detached leaves of its input
// and parameters, and gradients are taken with autograd::grad of that one block.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "model/block.h"
#include "model/parameter_store.h"

namespace osler {

// Which gradients a block's graph is to give.
enum class Graph { kNone, kParameters, kParametersAndInput };

struct BlockRun {
  at::Tensor x;  // the block's input, a leaf; undefined for the first block
  std::vector<at::Tensor> leaves;
  at::Tensor out;  // with its graph
  BlockMemo memo;  // of the block, where one was asked for
};

enum class Remember { kNothing, kMemo };

// x [T, D] (or T / tensor ranks rows). PRE: the block's parameters are in memory. Throws
// c10::Error.
BlockRun RunBlock(const Block& block, const ParameterStore& store, const at::Tensor& x,
                  const SequenceInputs& inputs, Graph graph,
                  Remember remember = Remember::kNothing);
// Again, with a graph, from the input and memo of an earlier run.
BlockRun RunBlockAgain(const Block& block, const ParameterStore& store, BlockRun earlier,
                       const SequenceInputs& inputs, Graph graph);

struct BlockGradients {
  at::Tensor input;  // undefined where the graph was not to give it
  std::vector<std::pair<int64_t, at::Tensor>> slots;  // of trainable ones, less those already added
};

// Where the gradient of a slot is summed.
using SumOfSlot = absl::FunctionRef<at::Tensor(int64_t slot)>;

// Uses the graph up. On a device, kernels add the gradients of matrices to `sum_of` themselves
// (kernels/linear.h). PRE: `run` was made with a graph.
BlockGradients BackwardBlock(const Block& block, BlockRun run, const at::Tensor& grad_out,
                             SumOfSlot sum_of);

}  // namespace osler
