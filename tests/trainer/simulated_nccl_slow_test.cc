// Training whose collectives run beside it on streams of their own, over a simulation of NCCL, is
// the one-rank computation under every kind of layout: nothing is read, written or given back
// before what must come first.
#include <gtest/gtest.h>

#include <string>

#include "parallel/nccl/nccl_communicator.h"
#include "tests/testing/simulated_nccl.h"
#include "tests/trainer/layout_testing.h"

namespace osler {
namespace {

using testing::Compute;
using testing::Describe;
using testing::Layout;
using testing::TinyCase;

class SimulatedNcclTest : public ::testing::TestWithParam<Layout> {};

TEST_P(SimulatedNcclTest, EqualsOneRank) {
  testing::NcclSimulation simulation;
  const auto library = testing::SimulateNccl(simulation);
  const TinyCase tiny{.config = testing::TinyGemma(4, /*tied_head=*/true), .steps = 3};
  Layout layout = GetParam();
  layout.devices = [&](Communicator& world) {
    return ConnectNccl(world, world.rank(), {.library = library});
  };
  SCOPED_TRACE(Describe(layout));
  testing::ExpectSame(Compute(tiny, {.micro_batch = tiny.packs}), Compute(tiny, layout));
}

constexpr WalkOptions kRecompute{.recompute = RecomputeMode::kFull};

// Sizes by axis: pipeline, data, shard, context, tensor.
INSTANTIATE_TEST_SUITE_P(
    Layouts, SimulatedNcclTest,
    ::testing::Values(
        Layout{.mesh = {{1, 3, 1, 1, 1}}},
        Layout{.mesh = {{1, 1, 2, 1, 1}}, .zero = ZeroLevel::kOptimizer, .micro_batch = 2},
        Layout{.mesh = {{1, 1, 3, 1, 1}}, .zero = ZeroLevel::kGradients},
        Layout{.mesh = {{1, 1, 3, 1, 1}}, .zero = ZeroLevel::kParameters, .walk = kRecompute},
        Layout{.mesh = {{1, 2, 2, 1, 1}}, .zero = ZeroLevel::kParameters, .micro_batch = 2},
        Layout{.mesh = {{1, 1, 1, 1, 2}}, .micro_batch = 3},
        Layout{.mesh = {{1, 1, 1, 2, 1}}, .micro_batch = 3},
        Layout{.mesh = {{1, 1, 1, 3, 1}}, .micro_batch = 3, .context_method = ContextMethod::kRing},
        Layout{.mesh = {{2, 1, 1, 1, 1}}, .chunks = 2},
        Layout{.mesh = {{2, 1, 2, 1, 2}}, .zero = ZeroLevel::kParameters, .walk = kRecompute}),
    [](const auto& param) { return "Number" + std::to_string(param.index); });

}  // namespace
}  // namespace osler
