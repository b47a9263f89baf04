// What every communicator must do when something is wrong. Each case is run by all ranks of a group
// together and spoils a group split from it; the last one spoils the world.
#pragma once

#include <vector>

#include "tests/parallel/communicator_battery.h"

namespace osler::testing {

// The time-out that the worlds of this battery are made with. Long enough for a loaded machine.
inline constexpr int kFailureTimeoutMilliseconds = 3000;

std::vector<BatteryCase> FailureBattery();

// What Wait says.
absl::Status Outcome(Handle handle);

}  // namespace osler::testing
