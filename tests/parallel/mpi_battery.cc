// The batteries over MPI: every rank of an mpirun runs this program.
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
#include "parallel/mpi/mpi_communicator.h"
#include "tests/parallel/battery_main.h"

namespace osler::testing {
namespace {

TEST(Mpi, ASecondConnectionIsRefused) {
  EXPECT_EQ(ExitCodeOf(ConnectMpi().status()), ExitCode::kDevice);
}

int Leave(Communicator& world) {
  if (world.rank() == 1) {
    world.Abandon();
    return 3;
  }
  world.Barrier().Wait();
  return 0;
}

int Main(int argc, char** argv) {
  auto connected = ConnectMpi(BatteryOptions(argc, argv));
  if (!connected.ok()) {
    std::fprintf(stderr, "%s\n", connected.status().ToString().c_str());
    return static_cast<int>(ExitCodeOf(connected.status()));
  }
  std::unique_ptr<Communicator> world = *std::move(connected);
  if (argc > 1 && std::string(argv[1]) == "leave") return Leave(*world);
  const int result = RunBattery(argc, argv, *world);
  world.reset();
  // A spoilt world leaves MPI as it is, for mpirun to end the others; here there are none.
  if (WantsFailures(argc, argv)) MPI_Finalize();
  return result;
}

}  // namespace
}  // namespace osler::testing

int main(int argc, char** argv) { return osler::testing::Main(argc, argv); }
