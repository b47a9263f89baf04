// A whole tiny model and its loss on the ranks of a tensor axis, block after block by hand, against
// one rank, in fp64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "tests/model/tiny_model.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "trainer/loss/parallel_loss.h"

namespace osler {
namespace {

using testing::ExpectSameTensor;
using testing::IsOk;
using testing::LeavesOf;
using testing::MakeWhole;
using testing::RunRanks;
using testing::SliceOfSlot;
using testing::TinyCase;
using testing::WholeModel;

struct Step {
  double loss = 0;
  at::Tensor log_probs_T;
  std::vector<at::Tensor> grads;  // by slot
};

// What the ranks' slices give; tensor == nullptr: the whole model on one rank.
Step RunStep(const WholeModel& whole, Communicator* tensor, const at::Tensor& targets_T) {
  const int rank = tensor == nullptr ? 0 : tensor->rank(),
            ranks = tensor == nullptr ? 1 : tensor->size();
  const std::vector<at::Tensor> leaves = LeavesOf(whole, rank, ranks);
  SequenceInputs inputs = whole.inputs;
  inputs.tensor = tensor;
  Activations x;
  std::vector<int64_t> slots;
  for (const auto& block : whole.model.blocks) {
    SlotView view;
    for (const int64_t slot : block->slots()) {
      view.push_back(leaves[static_cast<size_t>(slot)]);
      slots.push_back(slot);
    }
    x = block->Forward(x, view, inputs);
  }
  Step step;
  for (const at::Tensor& leaf : leaves) step.grads.push_back(at::zeros_like(leaf.detach()));
  const auto head = static_cast<size_t>(whole.model.head_slot);
  const at::Tensor hidden = x.x_TD.detach(), weight = leaves[head].detach();
  const LinearCrossEntropyResult loss =
      ParallelLoss(tensor, hidden, weight, targets_T, step.grads[head],
                   {.chunk_tokens = 6, .gradient_scale = 0.25});
  step.loss = loss.loss_sum;
  step.log_probs_T = ParallelTargetLogProbs(tensor, hidden, weight, targets_T, 6);
  std::vector<at::Tensor> wanted;
  for (const int64_t slot : slots) wanted.push_back(leaves[static_cast<size_t>(slot)]);
  const auto grads = torch::autograd::grad({x.x_TD}, wanted, {loss.grad_hidden_TD});
  for (size_t i = 0; i < slots.size(); ++i)
    step.grads[static_cast<size_t>(slots[i])].add_(grads[i]);
  return step;
}

class TensorModel : public ::testing::TestWithParam<TinyCase> {};

TEST_P(TensorModel, OneStepIsThatOfOneRank) {
  const TinyCase& c = GetParam();
  const WholeModel whole = MakeWhole(c);
  const at::Tensor targets =
      at::arange(testing::kTinyTokens, at::kLong).mul_(11).remainder_(testing::kTinyVocabulary);
  targets.slice(0, 3, 8).fill_(-100);
  const Step want = RunStep(whole, nullptr, targets);
  std::vector<Step> parts(static_cast<size_t>(c.ranks));
  const auto statuses = RunRanks(c.ranks, [&](Communicator& comm) {
    parts[static_cast<size_t>(comm.rank())] = RunStep(whole, &comm, targets);
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) ASSERT_THAT(status, IsOk());
  for (const Step& part : parts) {
    EXPECT_NEAR(part.loss, want.loss, 1e-11 * want.loss);
    ExpectSameTensor(part.log_probs_T, want.log_probs_T, "log-probabilities");
  }
  for (size_t slot = 0; slot < want.grads.size(); ++slot) {
    at::Tensor sum = at::zeros_like(want.grads[slot]);
    for (int r = 0; r < c.ranks; ++r) {
      Narrow(sum, SliceOfSlot(whole, slot, r, c.ranks))
          .add_(parts[static_cast<size_t>(r)].grads[slot]);
    }
    ExpectSameTensor(sum, want.grads[slot], whole.store.slots()[slot].name);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TensorModel, ::testing::ValuesIn(testing::TinyCases()));

}  // namespace
}  // namespace osler
