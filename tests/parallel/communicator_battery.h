// What every communicator must do, whatever it runs on. Each case is run by all ranks of a group
// together and reports through gtest's EXPECT macros.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "parallel/communicator.h"

namespace osler::testing {

struct BatteryCase {
  std::string name;
  void (*run)(Communicator& comm);
};

// Of a test with a case and a number of ranks: "MaxKeepsNanOn4".
inline std::string NameOnRanks(const ::testing::TestParamInfo<std::tuple<BatteryCase, int>>& test) {
  const auto& [battery_case, ranks] = test.param;
  return battery_case.name + "On" + std::to_string(ranks);
}

// What arrives is right.
std::vector<BatteryCase> ValueBattery();
// Groups, what goes on side by side, agreement, and what is told of it.
std::vector<BatteryCase> OrderBattery();
std::vector<BatteryCase> CommunicatorBattery();  // both

}  // namespace osler::testing
