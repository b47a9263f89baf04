#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/rope.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

// Section 3 of "YaRN: Efficient Context Window Extension of Large Language Models", in fp64, with
// the ramp over the index of the frequency.
double YarnFrequency(double theta, int64_t pair, int64_t width, double factor,
                     const YarnRamp& ramp) {
  const auto index_of = [&](double turns) {
    const auto original = static_cast<double>(ramp.original_positions);
    const double index = static_cast<double>(width) / 2 *
                         std::log(original / (2 * std::numbers::pi * turns)) / std::log(theta);
    return index;
  };
  double low = index_of(ramp.fast_turns), high = index_of(ramp.slow_turns);
  if (ramp.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  const double frequency =
      std::pow(theta, -2 * static_cast<double>(pair) / static_cast<double>(width));
  const double slowed = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
  return frequency / factor * slowed + frequency * (1 - slowed);
}

TEST(YarnRope, TablesFollowTheDefinition) {
  const std::vector<int64_t> positions = {0, 1, 7, 512, 8191, 131071};
  for (const bool truncate : {true, false}) {
    const YarnRamp ramp{.original_positions = 4096, .truncate = truncate, .magnitude = 1.25};
    const RopeOptions options{.theta = 1e4, .factor = 16, .yarn = ramp};
    const RopeTables tables = MakeRopeTables(at::tensor(positions, at::kLong), 128, options);
    int kept = 0, divided = 0, blended = 0;
    for (int64_t pair = 0; pair < 64; ++pair) {
      const double plain = std::pow(1e4, -static_cast<double>(pair) / 64);
      const double frequency = YarnFrequency(1e4, pair, 128, 16, ramp);
      kept += frequency == plain ? 1 : 0;
      divided += frequency == plain / 16 ? 1 : 0;
      blended += frequency != plain && frequency != plain / 16 ? 1 : 0;
      for (size_t t = 0; t < positions.size(); ++t) {
        const auto row = static_cast<int64_t>(t);
        const double angle = static_cast<double>(positions[t]) * frequency;
        const double tolerance = 2e-6 + angle * 3e-6;  // fp32, and a blend loses digits
        for (const int64_t d : {pair, pair + 64}) {
          EXPECT_NEAR(tables.cos_TD[row][d].item<double>(), 1.25 * std::cos(angle), tolerance);
          EXPECT_NEAR(tables.sin_TD[row][d].item<double>(), 1.25 * std::sin(angle), tolerance);
        }
      }
    }
    EXPECT_GT(kept, 10);
    EXPECT_GT(divided, 10);
    EXPECT_GT(blended, 10);
  }
}

// A ramp narrower than one index is a step, not a division by zero.
TEST(YarnRope, ARampWithoutWidthIsAStep) {
  const RopeOptions options{
      .theta = 1e4,
      .factor = 2,
      .yarn = YarnRamp{.fast_turns = 1, .slow_turns = 1, .original_positions = 64}};
  EXPECT_TRUE(MakeRopeTables(at::arange(4), 8, options).cos_TD.isfinite().all().item<bool>());
}

TEST(YarnRope, RefusesARampBackwards) {
  const RopeOptions options{.yarn = YarnRamp{.fast_turns = 1, .slow_turns = 2}};
  EXPECT_THROW(MakeRopeTables(at::arange(4), 8, options), c10::Error);
  EXPECT_THROW(MakeRopeTables(at::arange(4), 8, {.theta = 1, .yarn = YarnRamp{}}), c10::Error);
}

}  // namespace
}  // namespace osler
