#include "kernels/merge_attention.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/interval_attention_cpu.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

// Keys [begin, end) of the input, and the mask over them.
IntervalAttentionInput KeysOf(const IntervalAttentionInput& all, int64_t begin, int64_t end) {
  IntervalAttentionInput part = all;
  part.k_SHD = all.k_SHD.narrow(0, begin, end - begin);
  part.v_SHD = all.v_SHD.narrow(0, begin, end - begin);
  part.mask = {(all.mask.lo_T - begin).clamp(0, end - begin).to(at::kInt),
               (all.mask.hi_T - begin).clamp(0, end - begin).to(at::kInt)};
  return part;
}

IntervalAttentionInput MakeInput(int64_t length, at::ScalarType dtype) {
  return {.q_THD = at::randn({length, 4, 24}, at::kDouble).to(dtype),
          .k_SHD = at::randn({length, 2, 24}, at::kDouble).to(dtype),
          .v_SHD = at::randn({length, 2, 24}, at::kDouble).to(dtype),
          .mask = CausalDocumentIntervals({0, 20, 21}, length, 30),
          .options = {.scale = 0.9}};
}

TEST(MergeAttention, PartsGiveTheWhole) {
  at::manual_seed(1);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const IntervalAttentionInput all = MakeInput(90, dtype);
    const AttentionOutput whole = IntervalAttentionForwardCpu(all, BestCpuIsa());
    const AttentionOutput sum{
        .out_THD = at::zeros_like(whole.out_THD),
        .lse_TH = at::full_like(whole.lse_TH, -std::numeric_limits<double>::infinity())};
    // Keys 20 to 25 first: the order does not matter.
    for (const auto& [begin, end] : {std::pair{20, 25}, {0, 20}, {60, 90}, {25, 60}})
      MergeAttention(IntervalAttentionPartCpu(KeysOf(all, begin, end), BestCpuIsa()), sum);
    const double tolerance = dtype == at::kDouble ? 1e-13 : 1e-6;
    EXPECT_LT(testing::Difference(sum.out_THD, whole.out_THD), tolerance);
    EXPECT_LT(testing::Difference(sum.lse_TH, whole.lse_TH), tolerance);
  }
}

TEST(MergeAttention, PartsOfBf16AreNotRounded) {
  at::manual_seed(2);
  const IntervalAttentionInput all = MakeInput(90, at::kBFloat16);
  const AttentionOutput part = IntervalAttentionPartCpu(all, BestCpuIsa());
  const AttentionOutput whole = IntervalAttentionForwardCpu(all, BestCpuIsa());
  EXPECT_EQ(part.out_THD.scalar_type(), at::kFloat);
  EXPECT_FALSE(at::equal(part.out_THD, part.out_THD.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_TRUE(at::equal(part.out_THD.to(at::kBFloat16), whole.out_THD));
}

TEST(MergeAttention, RowsWithoutKeys) {
  const double nothing = -std::numeric_limits<double>::infinity();
  const auto output = [](std::vector<double> out, std::vector<double> lse) {
    return AttentionOutput{.out_THD = at::tensor(out, at::kDouble).view({-1, 1, 1}),
                           .lse_TH = at::tensor(lse, at::kDouble).view({-1, 1})};
  };
  // Neither, only one, only the other, both alike, one far above.
  const AttentionOutput into = output({0, 0, 3, 1, 5}, {nothing, nothing, 0.5, 2, 800});
  MergeAttention(output({0, 7, 0, 2, 6}, {nothing, -3, nothing, 2, -800}), into);
  EXPECT_TRUE(at::equal(into.out_THD.flatten(), at::tensor({0.0, 7.0, 3.0, 1.5, 5.0})));
  EXPECT_TRUE(at::allclose(into.lse_TH.flatten(),
                           at::tensor({nothing, -3.0, 0.5, 2 + std::log(2.0), 800.0})));
}

TEST(MergeAttention, RefusesRoundedParts) {
  const AttentionOutput rounded{.out_THD = at::zeros({2, 1, 8}, at::kBFloat16),
                                .lse_TH = at::zeros({2, 1})};
  EXPECT_THROW(MergeAttention(rounded, rounded), c10::Error);
}

// Gradients through parts of the keys, with the whole's output and log-sum-exps, add up.
TEST(IntervalAttentionGradientSums, AddUpOverParts) {
  at::manual_seed(3);
  const IntervalAttentionInput all = MakeInput(90, at::kDouble);
  const AttentionOutput whole = IntervalAttentionForwardCpu(all, BestCpuIsa());
  const AttentionOutput grad{.out_THD = at::randn_like(whole.out_THD), .lse_TH = {}};
  const auto expected = IntervalAttentionBackwardCpu(grad, all, whole, BestCpuIsa());
  at::Tensor q = at::zeros_like(all.q_THD);
  std::vector<at::Tensor> k, v;
  for (const auto& [begin, end] : {std::pair{0, 22}, {22, 71}, {71, 90}}) {
    const auto part =
        IntervalAttentionGradientSumsCpu(grad, KeysOf(all, begin, end), whole, BestCpuIsa());
    q += part.q_THD;
    k.push_back(part.k_SHD);
    v.push_back(part.v_SHD);
  }
  EXPECT_LT(testing::Difference(q, expected.q_THD), 1e-13);
  EXPECT_LT(testing::Difference(at::cat(k), expected.k_SHD), 1e-13);
  EXPECT_LT(testing::Difference(at::cat(v), expected.v_SHD), 1e-13);
}

}  // namespace
}  // namespace osler
