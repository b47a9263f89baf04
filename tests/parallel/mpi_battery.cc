// The communicator battery over MPI: every rank of an mpirun runs this program.
//
//   mpirun -n 4 parallel_mpi_battery          the battery
//   mpirun -n 2 parallel_mpi_battery leave    rank 1 abandons and exits with 3 while rank 0 waits
//   for it
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "base/errors.h"
#include "parallel/launch.h"
#include "tests/parallel/communicator_battery.h"

namespace osler::testing {
namespace {

Communicator* world = nullptr;  // set in main, before any test runs

class MpiBattery : public ::testing::TestWithParam<BatteryCase> {};

TEST_P(MpiBattery, Holds) {
  EXPECT_EQ(world->backend(), "mpi");
  GetParam().run(*world);
}

INSTANTIATE_TEST_SUITE_P(World, MpiBattery, ::testing::ValuesIn(CommunicatorBattery()),
                         [](const auto& param) { return param.param.name; });

TEST(Mpi, ASecondConnectionIsRefused) {
  const auto launch = DetectLaunch();
  ASSERT_TRUE(launch.ok());
  const auto again = ConnectWorld(*launch);
  EXPECT_EQ(ExitCodeOf(again.status()), ExitCode::kDevice);
}

// Ranks other than 0 speak only of failures.
class FailureListener : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", world->rank(), result.file_name(),
                 result.line_number(), result.message());
  }
};

int Main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const auto launch = DetectLaunch();
  auto connected = launch.ok() ? ConnectWorld(*launch) : launch.status();
  if (!connected.ok()) {
    std::fprintf(stderr, "%s\n", connected.status().ToString().c_str());
    return static_cast<int>(ExitCodeOf(connected.status()));
  }
  const std::unique_ptr<Communicator> owner = *std::move(connected);
  world = owner.get();
  if (argc > 1 && std::string(argv[1]) == "leave") {
    if (world->rank() == 1) {
      world->Abandon();
      return 3;
    }
    world->Barrier().Wait();
    return 0;
  }
  if (world->rank() != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailureListener);
  }
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace osler::testing

int main(int argc, char** argv) { return osler::testing::Main(argc, argv); }
