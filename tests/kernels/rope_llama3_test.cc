#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "kernels/rope.h"
#include "tests/kernels/testing.h"

namespace osler {
namespace {

// The frequencies that "The Llama 3 Herd of Models" and its configuration define, in fp64.
double Llama3Frequency(double theta, int64_t pair, int64_t width, double factor, double low,
                       double high, double original) {
  const double frequency =
      std::pow(theta, -2 * static_cast<double>(pair) / static_cast<double>(width));
  const double turns = original * frequency / (2 * std::numbers::pi);  // in the original context
  if (turns > high) return frequency;
  if (turns < low) return frequency / factor;
  const double share = (turns - low) / (high - low);
  return (1 - share) * frequency / factor + share * frequency;
}

TEST(Llama3Rope, TablesFollowTheDefinition) {
  const std::vector<int64_t> positions = {0, 1, 7, 512, 8191, 131071};
  for (const double factor : {8.0, 32.0}) {
    const RopeOptions options{
        .theta = 5e5,
        .factor = factor,
        .llama3 = Llama3Ramp{.low_factor = 1, .high_factor = 4, .original_positions = 8192}};
    const RopeTables tables = MakeRopeTables(at::tensor(positions, at::kLong), 128, options);
    int kept = 0, divided = 0, blended = 0;
    for (int64_t pair = 0; pair < 64; ++pair) {
      const double plain = std::pow(5e5, -static_cast<double>(pair) / 64);
      const double frequency = Llama3Frequency(5e5, pair, 128, factor, 1, 4, 8192);
      kept += frequency == plain ? 1 : 0;
      divided += frequency == plain / factor ? 1 : 0;
      blended += frequency != plain && frequency != plain / factor ? 1 : 0;
      for (size_t t = 0; t < positions.size(); ++t) {
        const auto row = static_cast<int64_t>(t);
        const double angle = static_cast<double>(positions[t]) * frequency;
        const double tolerance = 1e-6 + angle * 1e-6;  // fp32, and a blend loses digits
        for (const int64_t d : {pair, pair + 64}) {
          EXPECT_NEAR(tables.cos_TD[row][d].item<double>(), std::cos(angle), tolerance) << pair;
          EXPECT_NEAR(tables.sin_TD[row][d].item<double>(), std::sin(angle), tolerance) << pair;
        }
      }
    }
    EXPECT_GT(kept, 20);
    EXPECT_GT(divided, 20);
    EXPECT_GT(blended, 3);
  }
}

TEST(Llama3Rope, RefusesARampWithoutWidth) {
  const RopeOptions options{.theta = 1e4, .factor = 8, .llama3 = Llama3Ramp{4, 4, 8192}};
  EXPECT_THROW(MakeRopeTables(at::arange(4), 8, options), c10::Error);
}

}  // namespace
}  // namespace osler
