#include "trainer/walk.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>

#include "base/failpoint.h"
#include "kernels/linear_cross_entropy.h"

namespace osler {
namespace {

constexpr int64_t kChunkTokens =
    512;  // of logits held at once; the kernel lowers it for large vocabularies

}  // namespace

Walk::Saved Walk::RunBlock(const Block& block, const at::Tensor& x, const SequenceInputs& inputs,
                           Graph graph) const {
  const bool parameters = graph != Graph::kNone;
  const at::AutoGradMode mode(parameters);
  Saved saved;
  if (x.defined()) saved.x = x.detach().requires_grad_(graph == Graph::kParametersAndInput);
  for (const int64_t index : block.slots()) {
    const ParameterSlot& slot = store_.slot(index);
    saved.leaves.push_back(slot.local.detach().requires_grad_(parameters && slot.trainable));
  }
  saved.out = block.Forward({saved.x}, saved.leaves, inputs).x_TD;
  return saved;
}

at::Tensor Walk::BackwardBlock(const Block& block, Saved saved, const at::Tensor& grad_out,
                               const SequenceInputs& inputs, Graph graph) {
  if (!saved.out.defined()) saved = RunBlock(block, saved.x, inputs, graph);
  std::vector<at::Tensor> wanted;
  std::vector<int64_t> slots;
  const size_t first = saved.x.defined() && saved.x.requires_grad() ? 1 : 0;
  if (first == 1) wanted.push_back(saved.x);
  for (size_t i = 0; i < saved.leaves.size(); ++i) {
    if (!saved.leaves[i].requires_grad()) continue;
    wanted.push_back(saved.leaves[i]);
    slots.push_back(block.slots()[i]);
  }
  if (wanted.empty()) return {};
  std::vector<at::Tensor> gradients = torch::autograd::grad({saved.out}, wanted, {grad_out});
  for (size_t i = 0; i < slots.size(); ++i) store_.AddGradient(slots[i], gradients[first + i]);
  return first == 1 ? std::move(gradients[0]) : at::Tensor();
}

size_t Walk::LowestTrainable() const {
  const auto trainable = [this](int64_t slot) { return store_.slot(slot).trainable; };
  const auto& blocks = model_.blocks;
  const auto lowest = std::find_if(blocks.begin(), blocks.end(), [&](const auto& block) {
    return std::any_of(block->slots().begin(), block->slots().end(), trainable);
  });
  return static_cast<size_t>(lowest - blocks.begin());
}

LossSum Walk::ForwardBackward(const MicroBatch& batch, double gradient_scale) {
  Failpoint("forward");
  const size_t blocks = model_.blocks.size(), lowest = LowestTrainable();
  const auto graph_of = [lowest](size_t i) {
    if (i < lowest) return Graph::kNone;
    return i == lowest ? Graph::kParameters : Graph::kParametersAndInput;
  };
  std::vector<Saved> saved(blocks);
  at::Tensor x;
  for (size_t i = 0; i < blocks; ++i) {
    const Graph graph = recompute_ == RecomputeMode::kNone ? graph_of(i) : Graph::kNone;
    Saved one = RunBlock(*model_.blocks[i], x, batch.inputs, graph);
    x = one.out.detach();
    if (i < lowest) continue;
    if (recompute_ == RecomputeMode::kFull) one.out = at::Tensor();
    saved[i] = std::move(one);
  }

  Failpoint("backward");
  const ParameterSlot& head = store_.slot(model_.head_slot);
  const at::Tensor head_gradient =
      head.trainable ? store_.GradientOf(model_.head_slot) : at::Tensor();
  LinearCrossEntropyResult loss =
      LinearCrossEntropy(x, head.local, batch.targets_T, head_gradient,
                         {.chunk_tokens = kChunkTokens, .gradient_scale = gradient_scale});
  at::Tensor gradient = std::move(loss.grad_hidden_TD);
  x = at::Tensor();
  for (size_t i = blocks; i-- > lowest;) {
    gradient =
        BackwardBlock(*model_.blocks[i], std::move(saved[i]), gradient, batch.inputs, graph_of(i));
  }
  return {loss.loss_sum, loss.count};
}

at::Tensor Walk::Hidden(const SequenceInputs& inputs) {
  at::Tensor x;
  for (const auto& block : model_.blocks) x = RunBlock(*block, x, inputs, Graph::kNone).out;
  return x;
}

LossSum Walk::Evaluate(const MicroBatch& batch) {
  const at::NoGradGuard no_grad;
  const at::Tensor log_probs = TargetLogProbs(
      Hidden(batch.inputs), store_.slot(model_.head_slot).local, batch.targets_T, kChunkTokens);
  return {-log_probs.to(at::kDouble).sum().item<double>(), batch.target_tokens};
}

}  // namespace osler
