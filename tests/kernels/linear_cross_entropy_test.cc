#include "kernels/linear_cross_entropy.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>

#include "kernels/linear_cross_entropy_cpu.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

using testing::Difference;
using testing::ExpectSameBitsForThreads;
using testing::IsaLevels;
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

// log softmax of capped logits and the gradient of the targets' sum, in fp64 from the definitions.
struct ExpectedChunk {
  at::Tensor log_probs, grad, max, sum, target;
};
ExpectedChunk ReferenceChunk(const at::Tensor& logits, const at::Tensor& targets, double soft_cap,
                             double scale) {
  const at::Tensor leaf = WideLeaf(logits);
  const at::Tensor z = soft_cap == 0 ? leaf : (leaf / soft_cap).tanh() * soft_cap;
  const at::Tensor max = std::get<0>(z.max(1));
  const at::Tensor sum = (z - max.unsqueeze(1)).exp().sum(1);
  const at::Tensor target = z.gather(1, targets.unsqueeze(1)).squeeze(1);
  const at::Tensor log_probs = target - max - sum.log();
  const at::Tensor grad = torch::autograd::grad({(-log_probs * scale).sum()}, {leaf})[0];
  return {log_probs.detach(), grad, max.detach(), sum.detach(), target.detach()};
}

TEST(CrossEntropyKernel, EveryInstructionSetWidthAndCap) {
  at::manual_seed(2);
  for (const CpuIsa isa : IsaLevels()) {
    for (const int64_t width : {1, 5, 16, 17, 63, 64, 2048, 2049, 6001}) {
      for (const double soft_cap : {0.0, 4.0}) {
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
          at::Tensor logits = (at::randn({6, width}, at::kDouble) * 5 - 40).to(dtype);
          if (soft_cap != 0) logits.add_(40);
          const at::Tensor targets = at::randint(0, width, {6}, at::kLong);
          const ExpectedChunk expected = ReferenceChunk(logits, targets, soft_cap, 0.5);
          const double tolerance = dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 2e-6 : 4e-3;
          const double sums = dtype == at::kDouble ? 1e-13 : 2e-6;  // fp32 whatever the logits are
          const SoftmaxTerms terms = CrossEntropyCpu(
              logits, targets, {.soft_cap = soft_cap, .gradient_scale = 0.5, .isa = isa});
          EXPECT_LT(Difference(terms.max_T, expected.max), sums) << CpuIsaName(isa) << width;
          EXPECT_LT(Difference(terms.sum_T, expected.sum), sums) << CpuIsaName(isa) << width;
          EXPECT_LT(Difference(terms.target_T, expected.target), sums) << CpuIsaName(isa) << width;
          EXPECT_LT(Difference(logits, expected.grad), tolerance) << CpuIsaName(isa) << width;
        }
      }
    }
  }
}

// A −100 among the rows of a slice, and logits that would overflow without the maximum.
TEST(CrossEntropyKernel, RowsWithoutATargetAndExtremes) {
  for (const CpuIsa isa : IsaLevels()) {
    at::Tensor logits = at::tensor({1e4F, -1e4F, 0.0F, -3e38F, 1.0F, 2.0F}).view({2, 3});
    const SoftmaxTerms terms =
        CrossEntropyCpu(logits, at::tensor({0, -100}, at::kLong), {.isa = isa});
    EXPECT_TRUE(at::equal(logits, at::zeros({2, 3}))) << logits;
    EXPECT_NEAR(SumLoss(terms, at::tensor({0, -100}, at::kLong)), 0, 1e-12);
    EXPECT_EQ(terms.target_T[1].item<float>(), 0);
    at::Tensor broken = at::tensor({1.0F, NAN, 2.0F}).view({1, 3});
    EXPECT_TRUE(
        std::isnan(SumLoss(CrossEntropyCpu(broken, at::tensor({0}, at::kLong), {.isa = isa}),
                           at::tensor({0}, at::kLong))));
  }
}

TEST(CrossEntropyKernel, BitsDoNotDependOnThreads) {
  at::manual_seed(3);
  const at::Tensor logits = at::randn({67, 3001}).to(at::kBFloat16);
  const at::Tensor targets = at::randint(0, 3001, {67}, at::kLong);
  ExpectSameBitsForThreads([&] {
    at::Tensor chunk = logits.clone();
    const SoftmaxTerms terms = CrossEntropyCpu(chunk, targets, {.soft_cap = 3});
    return std::vector{chunk, terms.max_T, terms.sum_T, terms.target_T};
  });
}

// Gemma 2's cap, against the same formula with ATen's operations.
TEST(LinearCrossEntropy, SoftCap) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Problem p = MakeProblem(31, 12, 77, dtype);
    const at::Tensor hidden = WideLeaf(p.hidden_TD), weight = WideLeaf(p.weight_VD);
    const at::Tensor losses = at::cross_entropy_loss((hidden.matmul(weight.t()) / 2.5).tanh() * 2.5,
                                                     p.targets_T, {}, at::Reduction::None);
    const auto grads = torch::autograd::grad({losses.sum()}, {hidden, weight});
    at::Tensor grad_weight = at::zeros({77, 12}, dtype);
    const auto result = LinearCrossEntropy(p.hidden_TD, p.weight_VD, p.targets_T, grad_weight,
                                           {.chunk_tokens = 7, .soft_cap = 2.5});
    const double tolerance = dtype == at::kDouble ? 1e-13 : 4e-6;
    EXPECT_NEAR(result.loss_sum, losses.sum().item<double>(), tolerance * 100);
    EXPECT_LT(Difference(result.grad_hidden_TD, grads[0]), tolerance);
    EXPECT_LT(Difference(grad_weight, grads[1]), tolerance);
    EXPECT_LT(Difference(TargetLogProbs(p.hidden_TD, p.weight_VD, p.targets_T, 7, 2.5), -losses),
              tolerance);
  }
}

// Central differences of the loss itself.
TEST(LinearCrossEntropy, GradientsMatchDifferences) {
  const Problem p = MakeProblem(7, 4, 9, at::kDouble);
  const at::Tensor hidden = p.hidden_TD.detach().clone(), weight = p.weight_VD.detach().clone();
  for (const double soft_cap : {0.0, 1.5}) {
    const LinearCrossEntropyOptions options{.chunk_tokens = 3, .soft_cap = soft_cap};
    at::Tensor grad_weight = at::zeros({9, 4}, at::kDouble);
    const auto result = LinearCrossEntropy(hidden, weight, p.targets_T, grad_weight, options);
    const auto check = [&](const at::Tensor& x, const at::Tensor& grad) {
      double* value = x.data_ptr<double>();
      for (int64_t i = 0; i < x.numel(); ++i) {
        const double kept = value[i];
        const auto loss = [&](double at_value) {
          value[i] = at_value;
          return LinearCrossEntropy(hidden, weight, p.targets_T, {}, options).loss_sum;
        };
        const double slope = (loss(kept + 1e-5) - loss(kept - 1e-5)) / 2e-5;
        value[i] = kept;
        EXPECT_NEAR(grad.flatten()[i].item<double>(), slope, 1e-8) << i;
      }
    };
    check(hidden, result.grad_hidden_TD);
    check(weight, grad_weight);
  }
}

// bf16 against ATen's own composition in bf16, both against fp64.
TEST(LinearCrossEntropy, Bf16ErrsNoMoreThanTheComposition) {
  const Problem p = MakeProblem(120, 64, 1501, at::kBFloat16);
  const Expected exact = Reference(p);
  const at::Tensor loss = at::cross_entropy_loss(p.hidden_TD.matmul(p.weight_VD.t()).to(at::kFloat),
                                                 p.targets_T, {}, at::Reduction::Sum);
  const auto theirs = torch::autograd::grad({loss}, {p.hidden_TD, p.weight_VD});
  at::Tensor grad_weight = at::zeros({1501, 64}, at::kFloat);
  const auto ours =
      LinearCrossEntropy(p.hidden_TD, p.weight_VD, p.targets_T, grad_weight, {.chunk_tokens = 40});
  EXPECT_LE(RelativeNorm(ours.grad_hidden_TD, exact.grad_hidden),
            2 * RelativeNorm(theirs[0], exact.grad_hidden));
  EXPECT_LE(RelativeNorm(grad_weight, exact.grad_weight),
            2 * RelativeNorm(theirs[1], exact.grad_weight));
  EXPECT_LE(std::abs(ours.loss_sum - exact.loss),
            2 * std::abs(loss.item<double>() - exact.loss) + 1e-6 * exact.loss);
}

// A head cut into uneven slices of the vocabulary gives the whole head's loss and gradients.
TEST(LinearCrossEntropy, VocabularySlicesMakeUpTheWhole) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const std::vector<int64_t>& cuts :
         {std::vector<int64_t>{0, 77}, {0, 20, 77}, {0, 1, 50, 77}}) {
      const Problem p = MakeProblem(31, 12, 77, dtype);
      const at::Tensor hidden = p.hidden_TD.detach(), weight = p.weight_VD.detach();
      const at::ScalarType sums = dtype == at::kDouble ? at::kDouble : at::kFloat;
      const LinearCrossEntropyOptions options{.gradient_scale = 0.25, .soft_cap = 6};
      at::Tensor whole_weight = at::ones({77, 12}, sums), slice_weight = at::ones({77, 12}, sums);
      const auto whole = LinearCrossEntropy(hidden, weight, p.targets_T, whole_weight, options);

      std::vector<VocabularySlice> slices;
      std::vector<SliceLogits> logits;
      std::vector<SoftmaxTerms> terms;
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        slices.push_back({weight.narrow(0, cuts[i], cuts[i + 1] - cuts[i]), cuts[i]});
        logits.push_back(SliceForward(hidden, slices[i], p.targets_T, options));
        terms.push_back(logits[i].terms);
      }
      const SoftmaxTerms merged = MergeSoftmaxTerms(terms);
      at::Tensor grad_hidden = at::zeros({31, 12}, sums);
      for (size_t i = 0; i < slices.size(); ++i) {
        grad_hidden +=
            SliceBackward(logits[i], merged, hidden, slices[i], p.targets_T,
                          slice_weight.narrow(0, cuts[i], cuts[i + 1] - cuts[i]), options);
      }
      const double tolerance = dtype == at::kDouble ? 1e-14 : dtype == at::kFloat ? 1e-6 : 1e-2;
      EXPECT_NEAR(SumLoss(merged, p.targets_T) / whole.loss_sum, 1,
                  dtype == at::kDouble ? 1e-14 : 1e-6);
      EXPECT_LT(RelativeNorm(grad_hidden, whole.grad_hidden_TD), tolerance);
      EXPECT_LT(RelativeNorm(slice_weight, whole_weight), tolerance);
      EXPECT_GT((slice_weight - 1).norm().item<double>(), 0.1);
    }
  }
}

// The byte budget alone bounds a chunk too, strided values are taken, and no row is no work.
TEST(LinearCrossEntropy, BudgetStridesAndNoRows) {
  const Problem p = MakeProblem(31, 12, 77, at::kDouble);
  const Expected expected = Reference(p);
  const at::Tensor strided_hidden = p.hidden_TD.detach().t().contiguous().t(),
                   strided_weight = p.weight_VD.detach().t().contiguous().t();
  ASSERT_FALSE(strided_hidden.is_contiguous());
  for (const int64_t bytes : {int64_t{1}, int64_t{3 * 77 * 8}, int64_t{1} << 30}) {
    at::Tensor grad_weight = at::zeros({77, 12}, at::kDouble);
    const auto result = LinearCrossEntropy(strided_hidden, strided_weight, p.targets_T, grad_weight,
                                           {.chunk_bytes = bytes});
    EXPECT_NEAR(result.loss_sum, expected.loss, 1e-12 * expected.loss);
    EXPECT_LT(Difference(result.grad_hidden_TD, expected.grad_hidden), 1e-13);
    EXPECT_LT(Difference(grad_weight, expected.grad_weight), 1e-13);
  }
  const auto none =
      LinearCrossEntropy(at::ones({0, 4}), at::ones({9, 4}), at::empty({0}, at::kLong), {}, {});
  EXPECT_EQ(none.count, 0);
  EXPECT_EQ(none.grad_hidden_TD.sizes(), (std::vector<int64_t>{0, 4}));
  EXPECT_THROW(LinearCrossEntropy(at::ones({2, 4}), at::ones({9, 4}), at::zeros({2}, at::kLong), {},
                                  {.soft_cap = -1}),
               c10::Error);
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
  LinearCrossEntropy(hidden, weight, targets, grad_weight,
                     {.chunk_tokens = rows, .chunk_bytes = int64_t{128} << 20});
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 200 * 1024);  // KiB
}

}  // namespace
}  // namespace osler
