#include "kernels/linear_cross_entropy.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/kernels/testing.h"

namespace osler {
namespace {

using testing::Difference;
using testing::RandomLeaf;
using testing::RelativeNorm;
using testing::SameBits;
using testing::WideLeaf;

struct Problem {
  at::Tensor hidden_TD, weight_VD, targets_T;
};

// Every third row has no target.
Problem MakeProblem(int64_t rows, int64_t width, int64_t vocabulary, at::ScalarType dtype) {
  at::manual_seed(1);
  Problem problem{RandomLeaf({rows, width}, dtype), RandomLeaf({vocabulary, width}, dtype),
                  at::randint(0, vocabulary, {rows}, at::kLong)};
  for (int64_t t = 0; t < rows; t += 3) problem.targets_T[t] = -100;
  return problem;
}

// Sum over targets with ATen's own cross-entropy, and its gradients.
struct Expected {
  double loss;
  at::Tensor grad_hidden, grad_weight, log_probs;
};
Expected Reference(const Problem& p) {
  const at::Tensor hidden = WideLeaf(p.hidden_TD), weight = WideLeaf(p.weight_VD);
  const at::Tensor losses =
      at::cross_entropy_loss(hidden.matmul(weight.t()), p.targets_T, {}, at::Reduction::None);
  const auto grads = torch::autograd::grad({losses.sum()}, {hidden, weight});
  return {losses.sum().item<double>(), grads[0], grads[1], -losses.detach()};
}

TEST(LinearCrossEntropy, EqualsAtenForEveryChunkSize) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Problem p = MakeProblem(31, 12, 77, dtype);
    const Expected expected = Reference(p);
    const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-6;
    for (const int64_t chunk : {1, 4, 20, 21, 1000}) {
      at::Tensor grad_weight = at::ones({77, 12}, dtype);
      const auto result = LinearCrossEntropy(p.hidden_TD, p.weight_VD, p.targets_T, grad_weight,
                                             {.chunk_tokens = chunk, .gradient_scale = 0.25});
      EXPECT_EQ(result.count, 20);
      EXPECT_NEAR(result.loss_sum, expected.loss, tolerance * expected.loss);
      EXPECT_LT(Difference(result.grad_hidden_TD * 4, expected.grad_hidden), tolerance * 4);
      EXPECT_LT(Difference((grad_weight - 1) * 4, expected.grad_weight), tolerance * 4);
      EXPECT_TRUE(at::equal(result.grad_hidden_TD[0], at::zeros({12}, dtype)));
      const at::Tensor log_probs = TargetLogProbs(p.hidden_TD, p.weight_VD, p.targets_T, chunk);
      EXPECT_EQ(log_probs.scalar_type(), dtype);
      EXPECT_LT(Difference(log_probs, expected.log_probs), tolerance * 4);
    }
  }
}

TEST(LinearCrossEntropy, Bf16AccumulatesInFp32) {
  const Problem p = MakeProblem(60, 64, 501, at::kBFloat16);
  const Expected expected = Reference(p);
  at::Tensor grad_weight = at::zeros({501, 64}, at::kFloat);
  const auto result = LinearCrossEntropy(p.hidden_TD, p.weight_VD, p.targets_T, grad_weight,
                                         {.chunk_tokens = 16, .gradient_scale = 1});
  EXPECT_EQ(result.grad_hidden_TD.scalar_type(), at::kBFloat16);
  EXPECT_NEAR(result.loss_sum / expected.loss, 1, 5e-3);
  EXPECT_LT(RelativeNorm(result.grad_hidden_TD, expected.grad_hidden), 2e-2);
  EXPECT_LT(RelativeNorm(grad_weight, expected.grad_weight), 2e-2);
  const at::Tensor log_probs = TargetLogProbs(p.hidden_TD, p.weight_VD, p.targets_T, 16);
  EXPECT_EQ(log_probs.scalar_type(), at::kFloat);
  EXPECT_LT(RelativeNorm(log_probs, expected.log_probs), 1e-2);
}

TEST(LinearCrossEntropy, IsDeterministicAndSkipsAFrozenHead) {
  const Problem p = MakeProblem(40, 32, 300, at::kFloat);
  at::Tensor first = at::zeros({300, 32}), second = at::zeros({300, 32});
  const auto a =
      LinearCrossEntropy(p.hidden_TD, p.weight_VD, p.targets_T, first, {.chunk_tokens = 8});
  const auto b =
      LinearCrossEntropy(p.hidden_TD, p.weight_VD, p.targets_T, second, {.chunk_tokens = 8});
  const auto frozen =
      LinearCrossEntropy(p.hidden_TD, p.weight_VD, p.targets_T, {}, {.chunk_tokens = 8});
  EXPECT_EQ(a.loss_sum, b.loss_sum);
  EXPECT_EQ(a.loss_sum, frozen.loss_sum);
  EXPECT_TRUE(SameBits(first, second));
  EXPECT_TRUE(SameBits(a.grad_hidden_TD, b.grad_hidden_TD));
  EXPECT_TRUE(SameBits(a.grad_hidden_TD, frozen.grad_hidden_TD));
}

TEST(LinearCrossEntropy, NoTargetAtAll) {
  const at::Tensor targets = at::full({5}, -100, at::kLong);
  at::Tensor grad_weight = at::zeros({9, 4});
  const auto result =
      LinearCrossEntropy(at::ones({5, 4}), at::ones({9, 4}), targets, grad_weight, {});
  EXPECT_EQ(result.loss_sum, 0);
  EXPECT_EQ(result.count, 0);
  EXPECT_TRUE(at::equal(result.grad_hidden_TD, at::zeros({5, 4})));
  EXPECT_TRUE(at::equal(grad_weight, at::zeros({9, 4})));
  EXPECT_TRUE(
      at::equal(TargetLogProbs(at::ones({5, 4}), at::ones({9, 4}), targets, 2), at::zeros({5})));
}

// A confident model's tiny losses and an unlikely target's large one both survive fp32.
TEST(LinearCrossEntropy, ExtremeLogits) {
  const at::Tensor weight = at::tensor({200.0F, 0.0F, -200.0F}).unsqueeze(1),
                   hidden = at::ones({2, 1});
  const auto result = LinearCrossEntropy(hidden, weight, at::tensor({0, 2}, at::kLong), {}, {});
  EXPECT_NEAR(result.loss_sum, 400, 1e-4);
  EXPECT_TRUE(at::isfinite(result.grad_hidden_TD).all().item<bool>());
}

TEST(LinearCrossEntropy, RefusesATargetOutsideTheVocabulary) {
  const at::Tensor targets = at::tensor({1, 9}, at::kLong);
  EXPECT_THROW(LinearCrossEntropy(at::ones({2, 4}), at::ones({9, 4}), targets, {}, {}), c10::Error);
  EXPECT_THROW(TargetLogProbs(at::ones({2, 4}), at::ones({9, 4}), targets, 0), c10::Error);
  EXPECT_THROW(LinearCrossEntropy(at::ones({2, 4}), at::ones({9, 5}), targets, {}, {}), c10::Error);
}

// Gemma's vocabulary, 1,024 targets: all logits would take 1 GiB; the growth stays within a few
// chunks' worth.
TEST(LinearCrossEntropy, LogitsNeverExistWhole) {
  const int64_t vocabulary = 262144, rows = 1024, width = 8;
  const at::Tensor hidden = at::randn({rows, width}), weight = at::randn({vocabulary, width});
  const at::Tensor targets = at::randint(0, vocabulary, {rows}, at::kLong);
  at::Tensor grad_weight = at::zeros({vocabulary, width});
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  LinearCrossEntropy(hidden, weight, targets, grad_weight, {.chunk_tokens = rows});
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 400 * 1024);  // KiB
}

}  // namespace
}  // namespace osler
