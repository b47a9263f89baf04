#include "tests/parallel/battery_main.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string_view>

#include "tests/parallel/communicator_battery.h"
#include "tests/parallel/failure_battery.h"

namespace osler::testing {
namespace {

class Case : public ::testing::Test {
 public:
  Case(void (*run)(Communicator&), Communicator& world) : run_(run), world_(world) {}
  void TestBody() override { run_(world_); }

 private:
  void (*run_)(Communicator&);
  Communicator& world_;
};

class FailureListener : public ::testing::EmptyTestEventListener {
 public:
  explicit FailureListener(int rank) : rank_(rank) {}

 private:
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name(), result.line_number(),
                 result.message());
  }

  const int rank_;
};

}  // namespace

bool WantsFailures(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "failures") return true;
  }
  return false;
}

CommunicatorOptions BatteryOptions(int argc, char** argv) {
  CommunicatorOptions options;
  if (WantsFailures(argc, argv))
    options.timeout = std::chrono::milliseconds(kFailureTimeoutMilliseconds);
  return options;
}

int RunBattery(int argc, char** argv, Communicator& world) {
  const bool failures = WantsFailures(argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  for (const BatteryCase& battery_case : failures ? FailureBattery() : CommunicatorBattery()) {
    ::testing::RegisterTest(
        failures ? "Failures" : "Battery", battery_case.name.c_str(), nullptr, nullptr, __FILE__,
        __LINE__, [run = battery_case.run, &world]() -> Case* { return new Case(run, world); });
  }
  if (world.rank() != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailureListener(world.rank()));
  }
  return RUN_ALL_TESTS();
}

}  // namespace osler::testing
