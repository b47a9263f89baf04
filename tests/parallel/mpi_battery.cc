// The communicator battery among processes: every rank runs this program, under mpirun over MPI, in
// an environment like torchrun's over TCP.
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
#include "parallel/world.h"
#include "tests/parallel/communicator_battery.h"

namespace osler::testing {
namespace {

// Set in main, before any test runs.
Communicator* world = nullptr;
Network network = Network::kNone;

class MpiBattery : public ::testing::TestWithParam<BatteryCase> {};

TEST_P(MpiBattery, Holds) {
  EXPECT_EQ(world->backend(), network == Network::kMpi   ? "mpi"
                              : network == Network::kTcp ? "tcp"
                                                         : "single");
  GetParam().run(*world);
}

INSTANTIATE_TEST_SUITE_P(World, MpiBattery, ::testing::ValuesIn(CommunicatorBattery()),
                         [](const auto& param) { return param.param.name; });

TEST(World, ASecondConnectionIsRefused) {
  const auto launch = DetectLaunch();
  ASSERT_TRUE(launch.ok());
  if (network == Network::kNone) GTEST_SKIP() << "a rank alone connects to nobody";
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
  absl::StatusOr<World> connected = launch.ok() ? ConnectWorld(*launch) : launch.status();
  if (!connected.ok()) {
    std::fprintf(stderr, "%s\n", connected.status().ToString().c_str());
    return static_cast<int>(ExitCodeOf(connected.status()));
  }
  const World owner = *std::move(connected);
  world = owner.comm.get();
  network = launch->network;
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
