// Runs the batteries on one process' rank of a world, for back-ends whose ranks are processes.
#pragma once

#include <chrono>

#include "parallel/communicator.h"
#include "parallel/engine.h"

namespace osler::testing {

// What a battery program's command line asks for: nothing for the battery, "failures" for the
// failure battery, which wants a world with a short time-out and leaves a spoilt one.
bool WantsFailures(int argc, char** argv);
CommunicatorOptions BatteryOptions(int argc, char** argv);

// All cases; ranks other than 0 speak only of failures. Call it once. Returns gtest's exit code.
int RunBattery(int argc, char** argv, Communicator& world);

}  // namespace osler::testing
