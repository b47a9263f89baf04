// The learning rate of a step.
#pragma once

#include <cstdint>

#include "configs/schema/train.pb.h"

namespace osler {

// Factor in [0, 1] of the peak rate for step 1…steps: linear warm-up over warmup_steps (step s gets
// s / warmup_steps), then constant, linear or half-cosine decay (Loshchilov & Hutter 2017) to
// min_lr_ratio at the last step.
double LearningRateFactor(const config::Schedule& schedule, int64_t step, int64_t steps);

}  // namespace osler
