// Data parallel over thread ranks is the one-rank computation: gradients per parameter and losses
// in fp64, whatever the split into readers and micro-batches.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/trainer/layout_testing.h"
#include "trainer/micro_batch.h"

namespace osler {
namespace {

using testing::Compute;
using testing::Layout;
using testing::Outcome;
using testing::TinyCase;
using testing::TinyGemma;

constexpr WalkOptions kRecompute{.recompute = RecomputeMode::kFull};
constexpr WalkOptions kSelective{.recompute = RecomputeMode::kSelective};
constexpr MeshShape Data(int ranks) { return {{1, ranks, 1, 1, 1}}; }

TinyCase Case() { return {.config = TinyGemma(3, /*tied_head=*/true)}; }

class DataParallelTest : public ::testing::TestWithParam<Layout> {};

TEST_P(DataParallelTest, GradientsEqualOneRank) {
  testing::ExpectSame(Compute(Case(), {.micro_batch = 7}), Compute(Case(), GetParam()));
}

INSTANTIATE_TEST_SUITE_P(
    Splits, DataParallelTest,
    ::testing::Values(Layout{.mesh = Data(2)}, Layout{.mesh = Data(3), .micro_batch = 2},
                      Layout{.mesh = Data(4)}, Layout{.mesh = Data(8)},  // one rank has no pack
                      Layout{}, Layout{.micro_batch = 3, .walk = kRecompute},
                      Layout{.mesh = Data(2), .micro_batch = 2, .walk = kRecompute},
                      Layout{.mesh = Data(2), .micro_batch = 2, .walk = kSelective}));

TEST(RecomputeTest, SameBitsAsKeptActivations) {
  const Outcome kept = Compute(Case(), {.micro_batch = 2});
  for (const RecomputeMode mode : {RecomputeMode::kSelective, RecomputeMode::kFull}) {
    const Outcome again = Compute(Case(), {.micro_batch = 2, .walk = {.recompute = mode}});
    for (const auto& [name, gradient] : kept.gradients)
      EXPECT_TRUE(at::equal(gradient, again.gradients.at(name))) << NameOf(mode) << " " << name;
  }
}

}  // namespace
}  // namespace osler
