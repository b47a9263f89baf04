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

const std::vector<BatteryCase>& CommunicatorBattery();

}  // namespace osler::testing
