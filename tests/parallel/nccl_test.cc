// NCCL where it cannot run: what asking for it says. Where it can: parallel/nccl_battery.cc; what
// Osler does with it: parallel/simulated_nccl_test.cc.
#include <gtest/gtest.h>

#include "base/errors.h"
#include "parallel/nccl/nccl_communicator.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using testing::Fails;
using ::testing::HasSubstr;
using testing::RunRanks;

TEST(Nccl, WithoutAGpuEveryRankGetsADeviceErrorThatSaysSo) {
  if (ConnectNccl(*MakeSingleCommunicator(), 0).ok()) GTEST_SKIP() << "this machine has a GPU";
  const auto results =
      RunRanks(3, [](Communicator& cpu) { return ConnectNccl(cpu, cpu.rank()).status(); });
  for (const absl::Status& result : results)
    EXPECT_THAT(result, Fails(ExitCode::kDevice, HasSubstr("NCCL was asked for")));
}

TEST(Nccl, VersionIsKnownOrTheReasonWhyNot) { EXPECT_NE(NcclVersion(), ""); }

}  // namespace
}  // namespace osler
