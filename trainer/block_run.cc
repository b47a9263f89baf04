#include "trainer/block_run.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>

namespace osler {
namespace {

// Whether a kernel may add the leaf's gradient to a sum. In the forward pass the sum is a mark
// without values: the memory of all blocks' sums is not there before they are needed.
bool AddsItsGradient(const at::Tensor& leaf) {
  return !leaf.is_cpu() && leaf.requires_grad() && leaf.dim() == 2;
}

BlockRun RunWith(BlockMemo* memo, const Block& block, const ParameterStore& store,
                 const at::Tensor& x, const SequenceInputs& inputs, Graph graph) {
  const bool parameters = graph != Graph::kNone;
  const at::AutoGradMode mode(parameters);
  BlockRun run;
  if (x.defined()) run.x = x.detach().requires_grad_(graph == Graph::kParametersAndInput);
  for (const int64_t index : block.slots()) {
    const ParameterSlot& slot = store.slot(index);
    run.leaves.push_back(slot.local.detach().requires_grad_(parameters && slot.trainable));
    if (AddsItsGradient(run.leaves.back()))
      run.leaves.back().mutable_grad() = at::empty({0}, slot.local.options());
  }
  run.out = block.Forward({run.x}, run.leaves, inputs, memo).x_TD;
  return run;
}

}  // namespace

BlockRun RunBlock(const Block& block, const ParameterStore& store, const at::Tensor& x,
                  const SequenceInputs& inputs, Graph graph, Remember remember) {
  if (remember == Remember::kNothing) return RunWith(nullptr, block, store, x, inputs, graph);
  BlockMemo memo;
  BlockRun run = RunWith(&memo, block, store, x, inputs, graph);
  run.memo = std::move(memo);
  return run;
}

BlockRun RunBlockAgain(const Block& block, const ParameterStore& store, BlockRun earlier,
                       const SequenceInputs& inputs, Graph graph) {
  const bool remembers = earlier.memo.attention.out_THD.defined();
  return RunWith(remembers ? &earlier.memo : nullptr, block, store, earlier.x, inputs, graph);
}

BlockGradients BackwardBlock(const Block& block, BlockRun run, const at::Tensor& grad_out,
                             SumOfSlot sum_of) {
  std::vector<at::Tensor> wanted;
  std::vector<int64_t> slots;
  const size_t first = run.x.defined() && run.x.requires_grad() ? 1 : 0;
  if (first == 1) wanted.push_back(run.x);
  for (size_t i = 0; i < run.leaves.size(); ++i) {
    if (!run.leaves[i].requires_grad()) continue;
    wanted.push_back(run.leaves[i]);
    slots.push_back(block.slots()[i]);
    if (AddsItsGradient(run.leaves[i])) run.leaves[i].mutable_grad() = sum_of(slots.back());
  }
  BlockGradients result;
  std::vector<at::Tensor> gradients =
      torch::autograd::grad({run.out}, wanted, {grad_out}, /*retain_graph=*/std::nullopt,
                            /*create_graph=*/false, /*allow_unused=*/true);
  if (first == 1) result.input = std::move(gradients[0]);
  for (size_t i = 0; i < slots.size(); ++i) {
    at::Tensor& gradient = gradients[first + i];
    // Undefined: a kernel has added it. On the CPU every gradient is returned.
    TORCH_CHECK(gradient.defined() || AddsItsGradient(wanted[first + i]), block.name(),
                " does not use its parameter ", slots[i]);
    if (gradient.defined()) result.slots.emplace_back(slots[i], std::move(gradient));
  }
  return result;
}

}  // namespace osler
