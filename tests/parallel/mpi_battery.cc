// The batteries among processes: every rank runs this program, under mpirun over MPI, in an
// environment like torchrun's over TCP.
//
//   mpirun -n 4 parallel_mpi_battery            the battery
//   mpirun -n 4 parallel_mpi_battery failures   the failure battery
//   mpirun -n 2 parallel_mpi_battery leave      rank 1 abandons and exits with 3 while rank 0 waits
//                                               for it
#include <gtest/gtest.h>
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "base/errors.h"
#include "parallel/launch.h"
#include "parallel/world.h"
#include "tests/parallel/battery_main.h"

namespace osler::testing {
namespace {

TEST(World, ASecondConnectionIsRefused) {
  const auto launch = DetectLaunch();
  ASSERT_TRUE(launch.ok());
  if (launch->network == Network::kNone) GTEST_SKIP() << "a rank alone connects to nobody";
  EXPECT_EQ(ExitCodeOf(ConnectWorld(*launch).status()), ExitCode::kDevice);
}

int Leave(Communicator& comm) {
  if (comm.rank() == 1) {
    comm.Abandon();
    return 3;
  }
  comm.Barrier().Wait();
  return 0;
}

int Main(int argc, char** argv) {
  const auto launch = DetectLaunch();
  absl::StatusOr<World> connected =
      launch.ok() ? ConnectWorld(*launch, {}, BatteryOptions(argc, argv)) : launch.status();
  if (!connected.ok()) {
    std::fprintf(stderr, "%s\n", connected.status().ToString().c_str());
    return static_cast<int>(ExitCodeOf(connected.status()));
  }
  World world = *std::move(connected);
  if (argc > 1 && std::string(argv[1]) == "leave") return Leave(*world.comm);
  const int result = RunBattery(argc, argv, *world.comm);
  world.comm.reset();
  // A spoilt world leaves MPI as it is, for mpirun to end the others; here there are none.
  if (WantsFailures(argc, argv) && launch->network == Network::kMpi) MPI_Finalize();
  return result;
}

}  // namespace
}  // namespace osler::testing

int main(int argc, char** argv) { return osler::testing::Main(argc, argv); }
