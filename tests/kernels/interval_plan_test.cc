#include "kernels/interval_plan.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/interval_attention.h"

namespace osler {
namespace {

TEST(CausalDocumentIntervals, FollowsDocumentsAndWindow) {
  const MaskIntervals mask = CausalDocumentIntervals({0, 3}, 7, 2);
  EXPECT_TRUE(at::equal(mask.lo_T, at::tensor({0, 0, 1, 3, 3, 4, 5}, at::kInt)));
  EXPECT_TRUE(at::equal(mask.hi_T, at::tensor({1, 2, 3, 4, 5, 6, 7}, at::kInt)));
}

TEST(CausalDocumentIntervals, RefusesDocumentsThatAreNone) {
  EXPECT_THROW(CausalDocumentIntervals({1}, 4, {}), c10::Error);
  EXPECT_THROW(CausalDocumentIntervals({0, 2, 2}, 4, {}), c10::Error);
  EXPECT_THROW(CausalDocumentIntervals({0, 4}, 4, {}), c10::Error);
  EXPECT_THROW(CausalDocumentIntervals({0}, 4, 0), c10::Error);
}

// Steps of the plan: each visible (row, key, head) once; steps that share columns or keys in one
// order, each before those that wait for it.
TEST(PlanBackward, CoversTheMaskOnce) {
  const AttentionHeads heads{2, 3};
  const int64_t width = 256, rows = 2600;
  const MaskIntervals mask = CausalDocumentIntervals({0, 3, 700}, rows, 900);
  const auto* lo = mask.lo_T.const_data_ptr<int32_t>();
  const auto* hi = mask.hi_T.const_data_ptr<int32_t>();
  const auto steps = PlanBackward(mask, heads, width);
  int64_t seen = 0;
  std::vector<int32_t> waits(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    const AttentionBlock& block = steps[i].block;
    for (int64_t c = block.column; c < block.column + block.columns; ++c) {
      const int64_t row = c / heads.group;
      seen += std::max<int64_t>(0, std::min<int64_t>(hi[row], block.key + block.keys) -
                                       std::max<int64_t>(lo[row], block.key));
    }
    for (const int32_t next : steps[i].next) {
      if (next < 0) continue;
      EXPECT_GT(next, static_cast<int32_t>(i));
      EXPECT_GT(steps[i].path, steps[static_cast<size_t>(next)].path);
      ++waits[static_cast<size_t>(next)];
    }
  }
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(waits[i], steps[i].waits) << i;
  EXPECT_EQ(seen, (mask.hi_T - mask.lo_T).sum().item<int64_t>() * heads.group * heads.key_heads);
}

}  // namespace
}  // namespace osler
