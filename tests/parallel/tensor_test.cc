#include "parallel/tensor.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using testing::IsOk;
using testing::RunRanks;

constexpr int64_t kRows = 3, kWidth = 5;  // a rank's

at::Tensor Values(int64_t seed, std::vector<int64_t> shape, at::ScalarType dtype) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::sin(at::arange(count, at::kDouble).add_(static_cast<double>(100 * seed + 1)))
      .view(shape)
      .to(dtype);
}

struct Outcome {
  at::Tensor out, grad;
};
// f on every rank with its own input, and its gradient for its own output gradient.
std::vector<Outcome> OnRanks(int ranks, at::ScalarType dtype, std::vector<int64_t> in_shape,
                             at::Tensor (*f)(Communicator*, const at::Tensor&)) {
  std::vector<Outcome> outcomes(static_cast<size_t>(ranks));
  const auto statuses = RunRanks(ranks, [&](Communicator& comm) {
    const at::Tensor x = Values(comm.rank(), in_shape, dtype).requires_grad_(true);
    const at::Tensor out = f(&comm, x);
    const at::Tensor weights = Values(50 + comm.rank(), out.sizes().vec(), dtype);
    outcomes[static_cast<size_t>(comm.rank())] = {out.detach(),
                                                  torch::autograd::grad({out}, {x}, {weights})[0]};
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
  return outcomes;
}

// Σ over ranks of what each brings, in fp64, rounded once.
at::Tensor Sum(int ranks, int64_t first_seed, std::vector<int64_t> shape, at::ScalarType dtype) {
  at::Tensor sum = at::zeros(shape, at::kDouble);
  for (int r = 0; r < ranks; ++r) sum.add_(Values(first_seed + r, shape, dtype).to(at::kDouble));
  return sum;
}

double Tolerance(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-14 : dtype == at::kFloat ? 1e-6 : 1e-2;
}

TEST(GatherTokens, JoinsRowsAndItsGradientIsTheSumOfEveryRanks) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const int ranks : {2, 3, 4}) {
      const auto outcomes = OnRanks(ranks, dtype, {kRows, kWidth}, GatherTokens);
      std::vector<at::Tensor> rows;
      for (int r = 0; r < ranks; ++r) rows.push_back(Values(r, {kRows, kWidth}, dtype));
      const at::Tensor all = at::cat(rows), sum = Sum(ranks, 50, all.sizes().vec(), dtype);
      for (int r = 0; r < ranks; ++r) {
        const Outcome& mine = outcomes[static_cast<size_t>(r)];
        EXPECT_TRUE(at::equal(mine.out, all));
        const at::Tensor wanted = sum.narrow(0, r * kRows, kRows);
        EXPECT_LT((mine.grad.to(at::kDouble) - wanted).abs().max().item<double>(),
                  Tolerance(dtype));
      }
    }
  }
}

TEST(ScatterSum, SumsAndDealsRowsAndItsGradientIsTheirGathering) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const int ranks : {2, 3, 4}) {
      const std::vector<int64_t> shape = {kRows * ranks, kWidth};
      const auto outcomes = OnRanks(ranks, dtype, shape, ScatterSum);
      const at::Tensor sum = Sum(ranks, 0, shape, dtype);
      std::vector<at::Tensor> grads;
      for (int r = 0; r < ranks; ++r) grads.push_back(Values(50 + r, {kRows, kWidth}, dtype));
      for (int r = 0; r < ranks; ++r) {
        const Outcome& mine = outcomes[static_cast<size_t>(r)];
        const at::Tensor wanted = sum.narrow(0, r * kRows, kRows);
        EXPECT_LT((mine.out.to(at::kDouble) - wanted).abs().max().item<double>(), Tolerance(dtype));
        EXPECT_TRUE(at::equal(mine.grad, at::cat(grads)));
      }
    }
  }
}

// The values of one rank are summed in place by the collective: what was given must not change.
TEST(ScatterSum, LeavesItsInputAndItsOutputHoldsItsOwnRowsOnly) {
  const auto statuses = RunRanks(2, [](Communicator& comm) {
    const at::Tensor x = Values(comm.rank(), {4, kWidth}, at::kFloat), before = x.clone();
    const at::Tensor out = ScatterSum(&comm, x);
    EXPECT_TRUE(at::equal(x, before));
    EXPECT_EQ(out.storage().nbytes(), 2 * kWidth * sizeof(float));
    const at::Tensor transposed = Values(comm.rank(), {kWidth, 4}, at::kFloat).t();
    EXPECT_TRUE(
        at::equal(ScatterSum(&comm, transposed), ScatterSum(&comm, transposed.contiguous())));
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
}

TEST(TensorParallel, OneRankIsTheIdentityItself) {
  const at::Tensor x = Values(0, {4, kWidth}, at::kFloat);
  const auto alone = MakeSingleCommunicator();
  for (Communicator* comm : {static_cast<Communicator*>(nullptr), alone.get()}) {
    EXPECT_TRUE(GatherTokens(comm, x).is_same(x));
    EXPECT_TRUE(ScatterSum(comm, x).is_same(x));
  }
}

TEST(ScatterSum, RefusesRowsThatCannotBeDealt) {
  const auto statuses = RunRanks(2, [](Communicator& comm) {
    EXPECT_THROW(ScatterSum(&comm, Values(0, {3, kWidth}, at::kFloat)), c10::Error);
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
}

// Each sends its own rows to the others, or theirs to them.
TEST(TensorParallel, BytesAreThoseOfTheRows) {
  const auto statuses = RunRanks(4, [](Communicator& comm) {
    const int64_t rows = kRows * kWidth * static_cast<int64_t>(sizeof(double));
    const at::Tensor x = Values(0, {kRows, kWidth}, at::kDouble).requires_grad_(true);
    const at::Tensor all = GatherTokens(&comm, x);
    EXPECT_EQ(comm.traffic().bytes_sent, 3 * rows);
    const at::Tensor out = ScatterSum(&comm, all);
    EXPECT_EQ(comm.traffic().bytes_sent, 6 * rows);
    torch::autograd::grad({out}, {x}, {at::ones_like(out)});
    EXPECT_EQ(comm.traffic().bytes_sent, 12 * rows);
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_THAT(status, IsOk());
}

}  // namespace
}  // namespace osler
