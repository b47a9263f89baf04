// What every communicator must do, whatever it runs on. Each case is run by all ranks of a group
// together and reports through gtest's EXPECT macros.
#pragma once

#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace osler::testing {

struct BatteryCase {
  std::string name;
  void (*run)(Communicator& comm);
};

// What arrives is right.
std::vector<BatteryCase> ValueBattery();
// Groups, what goes on side by side, agreement, and what is told of it.
std::vector<BatteryCase> OrderBattery();
std::vector<BatteryCase> CommunicatorBattery();  // both

}  // namespace osler::testing
