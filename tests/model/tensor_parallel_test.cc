// Blocks on the ranks of a tensor axis against the same blocks on one rank, in fp64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/layout.h"
#include "model/registry.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using testing::IsOk;
using testing::RunRanks;

struct Case {
  std::string family;
  int64_t heads = 4, key_value_heads = 2;
  int ranks = 2;
  bool tied = false;
  int64_t mlp_chunk_tokens = 0;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.family << " " << c.heads << "/" << c.key_value_heads << " heads on " << c.ranks
       << " ranks" << (c.tied ? ", tied" : "") << (c.mlp_chunk_tokens > 0 ? ", tiled MLP" : "");
}

constexpr int64_t kVocabulary = 48, kTokens = 24;

// A model whose every parameter is random, as one process has it.
struct Whole {
  ModelSpec spec;
  ParameterStore store;
  Model model;
  SequenceInputs inputs;
  std::vector<at::Tensor> parameters;  // by slot
};

Whole MakeWhole(const Case& c) {
  const nlohmann::json config = {{"model_type", c.family},
                                 {"vocab_size", kVocabulary},
                                 {"hidden_size", 32},
                                 {"intermediate_size", 24},
                                 {"num_hidden_layers", 2},
                                 {"num_attention_heads", c.heads},
                                 {"num_key_value_heads", c.key_value_heads},
                                 {"head_dim", 8},
                                 {"sliding_window", 5},
                                 {"sliding_window_pattern", 2},
                                 {"tie_word_embeddings", c.tied}};
  Whole whole{.spec = ParseModelSpec(config.dump(), "config.json").value(),
              .store = {},
              .model = {},
              .inputs = {},
              .parameters = {}};
  whole.model = whole.spec.build(whole.store);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
  for (const ParameterSlot& slot : whole.store.slots()) {
    const double std = slot.shape.size() == 1 ? 0.4 : 0.3;
    whole.parameters.push_back(at::empty(slot.shape, at::kDouble).normal_(0, std, generator));
  }
  // The upper half of the vocabulary never comes: some ranks look up nothing.
  std::vector<int32_t> tokens;
  for (int64_t t = 0; t < kTokens; ++t)
    tokens.push_back(static_cast<int32_t>((t * 17 + t * t * 5) % (kVocabulary / 2)));
  whole.inputs = whole.model.PrepareInputs(tokens, {0, 9, 10});
  whole.inputs.mlp_chunk_tokens = c.mlp_chunk_tokens;
  return whole;
}

TensorSlice SliceOfSlot(const Whole& whole, size_t slot, int rank, int ranks) {
  const ParameterSlot& parameter = whole.store.slots()[slot];
  return SliceFor(*FindRule(whole.spec.placements, parameter.name), parameter.shape, rank, ranks);
}

// A rank's slices as leaves; of one rank: the whole parameters.
std::vector<at::Tensor> LeavesOf(const Whole& whole, int rank, int ranks) {
  std::vector<at::Tensor> leaves;
  for (size_t i = 0; i < whole.parameters.size(); ++i) {
    leaves.push_back(Narrow(whole.parameters[i], SliceOfSlot(whole, i, rank, ranks))
                         .clone(at::MemoryFormat::Contiguous)
                         .requires_grad_(true));
  }
  return leaves;
}

at::Tensor RowsOf(const at::Tensor& x_TD, int rank, int ranks) {
  const int64_t rows = x_TD.size(0) / ranks;
  return x_TD.narrow(0, rank * rows, rows).clone();
}

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

void ExpectSame(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  const double norm = want.norm().item<double>();
  EXPECT_GT(norm, 0) << what << ": nothing is tested";
  EXPECT_LT((got - want).norm().item<double>(), 1e-10 * norm) << what;
}

class TensorParallel : public ::testing::TestWithParam<Case> {};

TEST_P(TensorParallel, EveryBlockIsTheSameComputation) {
  const Case& c = GetParam();
  const Whole whole = MakeWhole(c);
  ASSERT_THAT(CheckLayout(whole.spec, {.sizes = {1, 1, 1, 1, c.ranks}}), IsOk());
  const std::vector<at::Tensor> leaves = LeavesOf(whole, 0, 1);
  at::Tensor x;
  for (const auto& block : whole.model.blocks) {
    const at::Tensor grad_out =
        at::sin(at::arange(kTokens * 32, at::kDouble).mul_(0.37)).view({kTokens, 32});
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
    ExpectSame(at::cat(outs), want.out, block->name());
    if (x.defined()) ExpectSame(at::cat(grads_x), want.grad_x, block->name() + ": input");
    for (size_t i = 0; i < block->slots().size(); ++i) {
      const auto slot = static_cast<size_t>(block->slots()[i]);
      at::Tensor sum = at::zeros_like(want.grads[i]);
      for (int r = 0; r < c.ranks; ++r) {
        Narrow(sum, SliceOfSlot(whole, slot, r, c.ranks))
            .add_(parts[static_cast<size_t>(r)].grads[i]);
      }
      ExpectSame(sum, want.grads[i], whole.store.slots()[slot].name);
    }
    x = want.out;
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* family : {"gemma3_text", "llama", "qwen2", "qwen3"}) {
    cases.push_back({.family = family});
    cases.push_back({.family = family, .key_value_heads = 1, .tied = true});
    cases.push_back({.family = family, .key_value_heads = 4, .ranks = 4});
    cases.push_back({.family = family, .ranks = 4, .mlp_chunk_tokens = 7});
    cases.push_back({.family = family, .key_value_heads = 1, .ranks = 4});
  }
  cases.push_back({.family = "qwen2", .heads = 8, .key_value_heads = 2, .ranks = 4, .tied = true});
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Families, TensorParallel, ::testing::ValuesIn(Cases()));

}  // namespace
}  // namespace osler
