#include "trainer/loss/parallel_loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/testing/tensor_memory.h"

namespace osler {
namespace {

using testing::IsOk;
using testing::RunRanks;

struct Head {
  at::Tensor hidden_TD, weight_VD, targets_T;
};

// `share` of the rows have a target, the more of them the later the row.
Head MakeHead(int64_t tokens, int64_t width, int64_t vocabulary, double share,
              at::ScalarType dtype = at::kDouble) {
  at::manual_seed(3);
  Head head{at::randn({tokens, width}, at::kDouble).to(dtype),
            at::randn({vocabulary, width}, at::kDouble).to(dtype),
            at::randint(0, vocabulary, {tokens}, at::kLong)};
  const at::Tensor odds = at::rand({tokens}, at::kDouble) * at::linspace(2, 0, tokens, at::kDouble);
  head.targets_T.masked_fill_(odds >= 2 * share, -100);
  return head;
}

struct Part {
  LinearCrossEntropyResult loss;
  at::Tensor grad_weight_VD, log_probs_T;
};

std::vector<Part> OnRanks(int ranks, const Head& head, bool trainable,
                          const LinearCrossEntropyOptions& options) {
  std::vector<Part> parts(static_cast<size_t>(ranks));
  const int64_t rows = head.hidden_TD.size(0) / ranks, words = head.weight_VD.size(0) / ranks;
  const auto statuses = RunRanks(ranks, [&](Communicator& comm) {
    Part& part = parts[static_cast<size_t>(comm.rank())];
    const at::Tensor hidden = head.hidden_TD.narrow(0, comm.rank() * rows, rows).clone();
    const at::Tensor weight = head.weight_VD.narrow(0, comm.rank() * words, words).clone();
    if (trainable) part.grad_weight_VD = at::ones_like(weight);  // what was there stays
    part.loss = ParallelLoss(&comm, hidden, weight, head.targets_T, part.grad_weight_VD, options);
    part.log_probs_T = ParallelTargetLogProbs(&comm, hidden, weight, head.targets_T,
                                              options.chunk_tokens, options.soft_cap);
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
  return parts;
}

double Relative(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor wide = want.to(at::kDouble);
  return (got.to(at::kDouble) - wide).norm().item<double>() / wide.norm().item<double>();
}

// Cross-entropy by ATen's own log_softmax, in fp64.
struct Reference {
  double loss = 0;
  at::Tensor log_probs_T, grad_hidden_TD, grad_weight_VD;
};
Reference Expected(const Head& head, const LinearCrossEntropyOptions& options) {
  const at::Tensor hidden = head.hidden_TD.to(at::kDouble).clone().requires_grad_(true);
  const at::Tensor weight = head.weight_VD.to(at::kDouble).clone().requires_grad_(true);
  at::Tensor logits = at::matmul(hidden, weight.t());
  if (options.soft_cap > 0) logits = at::tanh(logits / options.soft_cap) * options.soft_cap;
  const at::Tensor picked =
      at::log_softmax(logits, 1).gather(1, head.targets_T.clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor log_probs = at::where(head.targets_T >= 0, picked, at::zeros_like(picked));
  (-log_probs.sum() * options.gradient_scale).backward();
  return {-log_probs.sum().item<double>(), log_probs.detach(), hidden.grad(), weight.grad()};
}

void Check(int ranks, const Head& head, const LinearCrossEntropyOptions& options,
           double tolerance) {
  const Reference want = Expected(head, options);
  const std::vector<Part> parts = OnRanks(ranks, head, /*trainable=*/true, options);
  std::vector<at::Tensor> grads_hidden, grads_weight;
  for (const Part& part : parts) {
    EXPECT_EQ(part.loss.loss_sum, parts[0].loss.loss_sum);  // the same bits everywhere
    EXPECT_TRUE(at::equal(part.log_probs_T, parts[0].log_probs_T));
    EXPECT_EQ(part.loss.count, (head.targets_T >= 0).sum().item<int64_t>());
    grads_hidden.push_back(part.loss.grad_hidden_TD);
    grads_weight.push_back(part.grad_weight_VD - 1);
  }
  EXPECT_NEAR(parts[0].loss.loss_sum, want.loss, tolerance * want.loss);
  EXPECT_LT(Relative(parts[0].log_probs_T, want.log_probs_T), tolerance);
  EXPECT_LT(Relative(at::cat(grads_hidden), want.grad_hidden_TD), tolerance);
  EXPECT_LT(Relative(at::cat(grads_weight), want.grad_weight_VD), tolerance);
}

TEST(ParallelLoss, IsTheLossOfTheWholeHead) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const double share : {1.0, 0.4}) {
      for (const int64_t chunk : {1, 7, 64, 512}) {
        SCOPED_TRACE(::testing::Message() << ranks << " ranks, " << share << ", " << chunk);
        Check(ranks, MakeHead(96, 9, 60, share),
              {.chunk_tokens = chunk, .gradient_scale = 0.037, .soft_cap = 0}, 1e-12);
      }
    }
  }
  Check(2, MakeHead(32, 9, 60, 1), {.gradient_scale = 0.1, .soft_cap = 3}, 1e-12);
}

TEST(ParallelLoss, NarrowTypesErrLikeOneRank) {
  Check(2, MakeHead(128, 32, 64, 0.6, at::kFloat), {.chunk_tokens = 32}, 1e-5);
  Check(4, MakeHead(256, 32, 64, 0.6, at::kBFloat16), {.chunk_tokens = 128}, 1e-2);
}

TEST(ParallelLoss, RowsWithoutTargetCostNothingAndGetNoGradient) {
  Head head = MakeHead(24, 5, 12, 1);
  head.targets_T.fill_(-100);
  for (const Part& part : OnRanks(2, head, true, {})) {
    EXPECT_EQ(part.loss.loss_sum, 0);
    EXPECT_EQ(part.loss.count, 0);
    EXPECT_TRUE(at::equal(part.loss.grad_hidden_TD, at::zeros({12, 5}, at::kDouble)));
    EXPECT_TRUE(at::equal(part.grad_weight_VD, at::ones({6, 5}, at::kDouble)));
    EXPECT_TRUE(at::equal(part.log_probs_T, at::zeros({24}, at::kDouble)));
  }
  head.targets_T[17] = 11;  // one row of one rank
  Check(2, head, {}, 1e-12);
}

TEST(ParallelLoss, AFrozenHeadGivesTheHiddenGradientAlone) {
  const Head head = MakeHead(24, 5, 12, 0.7);
  const Reference want = Expected(head, {});
  std::vector<at::Tensor> grads;
  for (const Part& part : OnRanks(2, head, /*trainable=*/false, {}))
    grads.push_back(part.loss.grad_hidden_TD);
  EXPECT_LT(Relative(at::cat(grads), want.grad_hidden_TD), 1e-12);
}

TEST(ParallelLoss, RefusesTargetsOutsideTheVocabularyAndOtherRows) {
  Head head = MakeHead(24, 5, 12, 1);
  const auto run = [&] {
    return RunRanks(2, [&](Communicator& comm) {
      ParallelLoss(&comm, head.hidden_TD.narrow(0, 0, 12), head.weight_VD.narrow(0, 0, 6),
                   head.targets_T, {}, {});
      return absl::OkStatus();
    });
  };
  head.targets_T[3] = 12;
  EXPECT_THAT(run()[0].message(), ::testing::HasSubstr("target 12 is outside"));
  head.targets_T = head.targets_T.narrow(0, 0, 12);
  EXPECT_THAT(run()[1].message(), ::testing::HasSubstr("2 ranks of 12 rows"));
}

// Twice the tokens need no more than the results they give.
TEST(ParallelLoss, NeedsAChunkAtOnce) {
  const int64_t width = 16, vocabulary = 256, chunk = 64;
  for (const int64_t tokens : {1024, 2048}) {
    const Head head = MakeHead(tokens, width, vocabulary, 1, at::kFloat);
    const auto statuses = RunRanks(2, [&](Communicator& comm) {
      const at::Tensor hidden = head.hidden_TD.narrow(0, 0, tokens / 2).clone();
      const at::Tensor weight = head.weight_VD.narrow(0, 0, vocabulary / 2).clone();
      at::Tensor grad_weight = at::zeros_like(weight);
      testing::TensorMemory memory;
      const auto loss =
          ParallelLoss(&comm, hidden, weight, head.targets_T, grad_weight, {.chunk_tokens = chunk});
      const int64_t results = hidden.numel() * 4 + 2 * tokens * 8;  // gradient, lists of rows
      const int64_t of_a_chunk = chunk * (2 * vocabulary / 2 + 4 * width + 64) * 4;
      EXPECT_LE(memory.TakePeak(), results + of_a_chunk);
      return absl::OkStatus();
    });
    for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
  }
}

}  // namespace
}  // namespace osler
