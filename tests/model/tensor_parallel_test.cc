// Blocks on the ranks of a tensor axis against the same blocks on one rank, in fp64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "model/layout.h"
#include "tests/model/tiny_model.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using testing::ExpectSameTensor;
using testing::IsOk;
using testing::kTinyTokens;
using testing::kTinyWidth;
using testing::LeavesOf;
using testing::MakeWhole;
using testing::RowsOf;
using testing::RunRanks;
using testing::SliceOfSlot;
using testing::TinyCase;
using testing::WholeModel;

// One block's outputs and gradients, or those of a rank's part.
struct Pass {
  at::Tensor out, grad_x;
  std::vector<at::Tensor> grads;  // by place in the block's slots
};
Pass RunBlock(const Block& block, const at::Tensor& x, const std::vector<at::Tensor>& leaves,
              const SequenceInputs& inputs, const at::Tensor& grad_out) {
  std::vector<at::Tensor> wanted;
  SlotView view;
  for (const int64_t slot : block.slots()) view.push_back(leaves[static_cast<size_t>(slot)]);
  wanted = view;
  Activations input;
  if (x.defined()) {
    input.x_TD = x.detach().requires_grad_(true);
    wanted.push_back(input.x_TD);
  }
  const at::Tensor out = block.Forward(input, view, inputs).x_TD;
  Pass pass{.out = out.detach(), .grad_x = {}, .grads = {}};
  pass.grads = torch::autograd::grad({out}, wanted, {grad_out});
  for (at::Tensor& grad : pass.grads) grad = grad.is_sparse() ? grad.to_dense() : grad;
  if (x.defined()) {
    pass.grad_x = pass.grads.back();
    pass.grads.pop_back();
  }
  return pass;
}

class TensorParallel : public ::testing::TestWithParam<TinyCase> {};

TEST_P(TensorParallel, EveryBlockIsTheSameComputation) {
  const TinyCase& c = GetParam();
  const WholeModel whole = MakeWhole(c);
  ASSERT_THAT(CheckLayout(whole.spec, {.sizes = {1, 1, 1, 1, c.ranks}}), IsOk());
  const std::vector<at::Tensor> leaves = LeavesOf(whole, 0, 1);
  at::Tensor x;
  for (const auto& block : whole.model.blocks) {
    const at::Tensor grad_out =
        at::sin(at::arange(kTinyTokens * kTinyWidth, at::kDouble).mul_(0.37))
            .view({kTinyTokens, kTinyWidth});
    const Pass want = RunBlock(*block, x, leaves, whole.inputs, grad_out);
    std::vector<Pass> parts(static_cast<size_t>(c.ranks));
    const auto statuses = RunRanks(c.ranks, [&](Communicator& comm) {
      SequenceInputs inputs = whole.inputs;
      inputs.tensor = &comm;
      parts[static_cast<size_t>(comm.rank())] = RunBlock(
          *block, x.defined() ? RowsOf(x, comm.rank(), c.ranks) : x,
          LeavesOf(whole, comm.rank(), c.ranks), inputs, RowsOf(grad_out, comm.rank(), c.ranks));
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) ASSERT_THAT(status, IsOk()) << block->name();

    std::vector<at::Tensor> outs, grads_x;
    for (const Pass& part : parts) {
      outs.push_back(part.out);
      grads_x.push_back(part.grad_x);
    }
    ExpectSameTensor(at::cat(outs), want.out, block->name());
    if (x.defined()) ExpectSameTensor(at::cat(grads_x), want.grad_x, block->name() + ": input");
    for (size_t i = 0; i < block->slots().size(); ++i) {
      const auto slot = static_cast<size_t>(block->slots()[i]);
      at::Tensor sum = at::zeros_like(want.grads[i]);
      for (int r = 0; r < c.ranks; ++r) {
        Narrow(sum, SliceOfSlot(whole, slot, r, c.ranks))
            .add_(parts[static_cast<size_t>(r)].grads[i]);
      }
      ExpectSameTensor(sum, want.grads[i], whole.store.slots()[slot].name);
    }
    x = want.out;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TensorParallel, ::testing::ValuesIn(testing::TinyCases()));

}  // namespace
}  // namespace osler
