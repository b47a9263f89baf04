// Attention split over thread ranks is one rank's IntervalAttention over the whole run.
#include "parallel/context_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <string>

#include "parallel/context_plan.h"
#include "tests/kernels/testing.h"
#include "tests/parallel/context_testing.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using testing::IsOk;
using testing::RowsIn;
using testing::WithNanRows;

constexpr int64_t kBlindRows = 3;

struct Shape {
  int64_t length = 0, heads = 4, key_heads = 2, width = 16;
  std::vector<int32_t> starts = {};
  std::optional<int64_t> window = std::nullopt;
  at::ScalarType dtype = at::kDouble;
};

// Inputs of the whole run and the weights of its output in a loss.
struct Problem {
  MaskIntervals mask;
  std::vector<at::Tensor> x;
  at::Tensor weights;
  AttentionOptions options;
};

Problem MakeProblem(const Shape& run) {
  return {.mask = CausalDocumentIntervals(run.starts, run.length, run.window),
          .x = {testing::RandomLeaf({run.length, run.heads, run.width}, run.dtype),
                testing::RandomLeaf({run.length, run.key_heads, run.width}, run.dtype),
                testing::RandomLeaf({run.length, run.key_heads, run.width}, run.dtype)},
          .weights = at::randn({run.length, run.heads, run.width}, at::kDouble).to(run.dtype),
          .options = {.scale = 0.7}};
}

// The output and the gradients of q, k and v of the whole run.
using Result = std::vector<at::Tensor>;

Result OneRank(const Problem& p) {
  const at::Tensor out = IntervalAttention(p.x[0], p.x[1], p.x[2], p.mask, p.options);
  Result result = {out.detach()};
  for (const at::Tensor& gradient : testing::Gradients(out, p.weights, p.x))
    result.push_back(gradient);
  return result;
}

Result Wide(Problem p) {
  for (at::Tensor& x : p.x) x = testing::WideLeaf(x);
  p.weights = p.weights.to(at::kDouble);
  return OneRank(p);
}

enum class Keys { kFetched, kRing };

// What all ranks together computed, put back in the run's order.
Result Split(const Problem& p, const ContextSplit& split, Keys keys) {
  Result whole = {at::full_like(p.x[0], NAN)};
  for (const at::Tensor& x : p.x) whole.push_back(at::full_like(x, NAN));
  std::mutex mutex;
  const auto body = [&](Communicator& comm) {
    const TokenRanges& own = split.ranges[static_cast<size_t>(comm.rank())];
    const int64_t tokens = TokenCount(own), rows = tokens + kBlindRows;
    const ContextAttention attention(
        comm, split, {{.mask = p.mask, .window = std::nullopt}}, rows,
        keys == Keys::kRing ? ContextMethod::kRing : ContextMethod::kGather);
    std::vector<at::Tensor> x;
    for (const at::Tensor& each : p.x)
      x.push_back(WithNanRows(RowsIn(each.detach(), own), kBlindRows).requires_grad_(true));
    const at::Tensor out = attention.Attend(0, x[0], x[1], x[2], p.options);
    Result local = {out.detach()};
    const at::Tensor weights = at::cat(
        {RowsIn(p.weights, own), at::zeros({kBlindRows, out.size(1), out.size(2)}, out.options())});
    for (const at::Tensor& gradient : testing::Gradients(out, weights, x))
      local.push_back(gradient);
    const std::lock_guard<std::mutex> lock(mutex);
    for (size_t i = 0; i < local.size(); ++i) {
      EXPECT_TRUE(at::equal(local[i].narrow(0, tokens, kBlindRows),
                            at::zeros_like(local[i].narrow(0, 0, kBlindRows))))
          << "blind rows of " << i;
      int64_t row = 0;
      for (const TokenRange& range : own) {
        whole[i].narrow(0, range.begin, range.size()).copy_(local[i].narrow(0, row, range.size()));
        row += range.size();
      }
    }
    return absl::OkStatus();
  };
  const auto ranks = static_cast<int>(split.ranges.size());
  for (const absl::Status& status : testing::RunRanks(ranks, body)) EXPECT_THAT(status, IsOk());
  return whole;
}

void ExpectEqual(const Result& result, const Result& expected, const std::string& where) {
  EXPECT_LT(testing::Difference(result[0], expected[0]), 1e-12) << where;
  for (size_t i = 1; i < result.size(); ++i)
    EXPECT_LT(testing::Difference(result[i], expected[i]), 1e-10) << where << ", input " << i - 1;
}

class ContextAttentionTest
    : public ::testing::TestWithParam<std::tuple<int, Keys, std::optional<int64_t>>> {};

TEST_P(ContextAttentionTest, EqualsOneRank) {
  const auto [ranks, keys, window] = GetParam();
  at::manual_seed(ranks);
  for (uint64_t seed = 0; seed < 8; ++seed) {
    // Tiny runs, down to fewer tokens than ranks and none, and ones of many tiles.
    const std::vector<int64_t> lengths = {0, 1, 2, 5, 40, 97, 150, 333};
    Shape run{.length = lengths[seed], .window = window};
    run.key_heads = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 2 : 4;
    run.starts = testing::RandomDocuments(run.length, 1 + run.length / (1 + seed % 3), seed);
    const Problem problem = MakeProblem(run);
    ExpectEqual(Split(problem, testing::SplitByMask(problem.mask, ranks), keys), OneRank(problem),
                absl::StrCat(run.length, " tokens"));
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, ContextAttentionTest,
                         ::testing::Combine(::testing::Values(2, 3, 4, 8),
                                            ::testing::Values(Keys::kFetched, Keys::kRing),
                                            ::testing::Values(std::optional<int64_t>(1), 2, 5, 200,
                                                              std::nullopt)));

// Not only splits that balance: ranks without tokens, single tokens, documents cut everywhere.
TEST(ContextAttention, AnySplit) {
  at::manual_seed(1);
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const Shape run{.length = 60,
                    .starts = testing::RandomDocuments(60, 30, seed),
                    .window = seed % 2 == 0 ? std::optional<int64_t>(7) : std::nullopt};
    const Problem problem = MakeProblem(run);
    ContextSplit split{.ranges = std::vector<TokenRanges>(5)};
    for (int64_t t = 0; t < 60; ++t) {
      const uint64_t rank = PhiloxBits(seed, static_cast<uint64_t>(t / (1 + seed % 4))) % 4;
      TokenRanges& ranges = split.ranges[rank];
      if (!ranges.empty() && ranges.back().end == t) {
        ++ranges.back().end;
      } else {
        ranges.push_back({t, t + 1});
      }
    }
    for (const Keys keys : {Keys::kFetched, Keys::kRing})
      ExpectEqual(Split(problem, split, keys), OneRank(problem), absl::StrCat("seed ", seed));
  }
}

TEST(ContextAttention, SoftCapAndWideHeads) {
  at::manual_seed(2);
  Shape run{.length = 120, .heads = 6, .key_heads = 2, .width = 72, .starts = {0, 31, 33}};
  Problem problem = MakeProblem(run);
  problem.options.soft_cap = 2.5;
  for (const Keys keys : {Keys::kFetched, Keys::kRing})
    ExpectEqual(Split(problem, testing::SplitByMask(problem.mask, 3), keys), OneRank(problem), "");
}

// Rounding: no further from fp64 than twice what one rank is.
class ContextAttentionRounding : public ::testing::TestWithParam<std::tuple<at::ScalarType, Keys>> {
};

TEST_P(ContextAttentionRounding, AtMostTwiceThatOfOneRank) {
  const auto [dtype, keys] = GetParam();
  at::manual_seed(3);
  const Problem problem =
      MakeProblem({.length = 700, .starts = {0, 3, 150}, .window = std::nullopt, .dtype = dtype});
  const Result wide = Wide(problem), one = OneRank(problem);
  for (const int ranks : {2, 4, 8}) {
    const Result split = Split(problem, testing::SplitByMask(problem.mask, ranks), keys);
    for (size_t i = 0; i < wide.size(); ++i) {
      EXPECT_EQ(split[i].scalar_type(), dtype);
      const double error = testing::RelativeNorm(split[i], wide[i]);
      const double one_error = testing::RelativeNorm(one[i], wide[i]);
      EXPECT_GT(one_error, 0);
      EXPECT_LE(error, 2 * one_error) << ranks << " ranks, result " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ContextAttentionRounding,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kBFloat16),
                                            ::testing::Values(Keys::kFetched, Keys::kRing)));

TEST(ContextAttention, SameBitsAgain) {
  at::manual_seed(4);
  const Problem problem = MakeProblem({.length = 300, .starts = {0, 170}, .dtype = at::kBFloat16});
  const ContextSplit split = testing::SplitByMask(problem.mask, 3);
  for (const Keys keys : {Keys::kFetched, Keys::kRing}) {
    const Result first = Split(problem, split, keys), again = Split(problem, split, keys);
    for (size_t i = 0; i < first.size(); ++i)
      EXPECT_TRUE(testing::SameBits(first[i], again[i])) << i;
  }
}

struct Bytes {
  int64_t forward = 0, backward = 0;
};

// What each rank sends in a forward and a backward pass.
std::vector<Bytes> Sent(const Problem& p, const ContextSplit& split,
                        const ContextAttention::Kind& kind, ContextMethod method) {
  std::vector<Bytes> sent(split.ranges.size());
  const auto body = [&](Communicator& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    const TokenRanges& own = split.ranges[rank];
    const ContextAttention attention(comm, split, {kind}, TokenCount(own), method);
    std::vector<at::Tensor> x;
    for (const at::Tensor& each : p.x) x.push_back(RowsIn(each.detach(), own).requires_grad_(true));
    const at::Tensor out = attention.Attend(0, x[0], x[1], x[2], p.options);
    sent[rank].forward = comm.traffic().bytes_sent;
    (void)testing::Gradients(out, RowsIn(p.weights, own), x);
    sent[rank].backward = comm.traffic().bytes_sent - sent[rank].forward;
    return absl::OkStatus();
  };
  for (const absl::Status& status : testing::RunRanks(static_cast<int>(split.ranges.size()), body))
    EXPECT_THAT(status, IsOk());
  return sent;
}

// docs/long_context.md: a key with its value is 2 K D values; gradients travel in fp32.
TEST(ContextAttention, BytesAreThoseOfTheFormulas) {
  at::manual_seed(5);
  const int64_t length = 800, window = 9, key_heads = 2, width = 16;
  const Problem problem = MakeProblem({.length = length, .starts = {0}, .dtype = at::kBFloat16});
  for (const int ranks : {2, 4}) {
    const ContextSplit split = testing::SplitByMask(problem.mask, ranks);
    const int64_t key = 2 * key_heads * width * 2, gradient = 2 * key_heads * width * 4;
    const ContextAttention::Kind global{.mask = problem.mask, .window = std::nullopt};
    const ContextAttention::Kind local{.mask = CausalDocumentIntervals({0}, length, window),
                                       .window = window};
    // Ring: all but the keys of the rank after it, and the gradients of all but its own keys.
    const auto ring = Sent(problem, split, global, ContextMethod::kRing);
    const auto gather = Sent(problem, split, global, ContextMethod::kGather);
    const auto halo = Sent(problem, split, local, ContextMethod::kRing);
    const auto alone = Sent(problem, split, local, ContextMethod::kAuto);
    Bytes gathered, halos;
    int64_t seen = 0, cuts = 0;
    for (size_t r = 0; r < ring.size(); ++r) {
      const int64_t others = length - TokenCount(split.ranges[r]);
      EXPECT_EQ(ring[r].forward, others * key);
      EXPECT_EQ(ring[r].backward, others * (key + gradient));
      gathered.forward += gather[r].forward;
      gathered.backward += gather[r].backward;
      halos.forward += halo[r].forward;
      halos.backward += halo[r].backward;
      EXPECT_EQ(alone[r].forward, halo[r].forward);
      // Gather: the keys before a rank's last token that are not its own.
      seen += split.ranges[r].back().end - TokenCount(split.ranges[r]);
      for (const TokenRange& range : split.ranges[r]) cuts += range.begin > 0 ? 1 : 0;
    }
    EXPECT_EQ(gathered.forward, seen * key);
    EXPECT_EQ(gathered.backward, seen * (key + gradient));
    // Window: window − 1 tokens before each range.
    EXPECT_EQ(halos.forward, cuts * (window - 1) * key);
    EXPECT_EQ(halos.backward, cuts * (window - 1) * (key + gradient));
  }
}

TEST(ContextAttention, WholeDocumentsSendNothing) {
  at::manual_seed(6);
  const Problem problem = MakeProblem({.length = 40, .starts = {0, 20}});
  const ContextSplit split = {.ranges = {{{0, 20}}, {{20, 40}}}};
  for (const Bytes& bytes :
       Sent(problem, split, {.mask = problem.mask, .window = std::nullopt}, ContextMethod::kAuto)) {
    EXPECT_EQ(bytes.forward + bytes.backward, 0);
  }
}

}  // namespace
}  // namespace osler
