#include "trainer/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace osler {

double LearningRateFactor(const config::Schedule& schedule, int64_t step, int64_t steps) {
  const int64_t warmup = schedule.warmup_steps();
  if (step <= warmup) return static_cast<double>(step) / static_cast<double>(warmup);
  const double floor = schedule.min_lr_ratio();
  const auto span = static_cast<double>(std::max<int64_t>(steps - warmup, 1));
  const double progress = std::min(1.0, static_cast<double>(step - warmup) / span);
  switch (schedule.type()) {
    case config::CONSTANT: return 1;
    case config::LINEAR: return 1 - (1 - floor) * progress;
    case config::COSINE:
      return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  return 1;
}

}  // namespace osler
