#include "trainer/block_run.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

namespace osler {

BlockRun RunBlock(const Block& block, const ParameterStore& store, const at::Tensor& x,
                  const SequenceInputs& inputs, Graph graph) {
  const bool parameters = graph != Graph::kNone;
  const at::AutoGradMode mode(parameters);
  BlockRun run;
  if (x.defined()) run.x = x.detach().requires_grad_(graph == Graph::kParametersAndInput);
  for (const int64_t index : block.slots()) {
    const ParameterSlot& slot = store.slot(index);
    run.leaves.push_back(slot.local.detach().requires_grad_(parameters && slot.trainable));
  }
  run.out = block.Forward({run.x}, run.leaves, inputs).x_TD;
  return run;
}

BlockGradients BackwardBlock(const Block& block, BlockRun run, const at::Tensor& grad_out) {
  std::vector<at::Tensor> wanted;
  std::vector<int64_t> slots;
  const size_t first = run.x.defined() && run.x.requires_grad() ? 1 : 0;
  if (first == 1) wanted.push_back(run.x);
  for (size_t i = 0; i < run.leaves.size(); ++i) {
    if (!run.leaves[i].requires_grad()) continue;
    wanted.push_back(run.leaves[i]);
    slots.push_back(block.slots()[i]);
  }
  BlockGradients result;
  std::vector<at::Tensor> gradients = torch::autograd::grad({run.out}, wanted, {grad_out});
  if (first == 1) result.input = std::move(gradients[0]);
  for (size_t i = 0; i < slots.size(); ++i)
    result.slots.emplace_back(slots[i], std::move(gradients[first + i]));
  return result;
}

}  // namespace osler
