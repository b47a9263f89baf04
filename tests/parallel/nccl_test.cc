// NCCL where it cannot run: what asking for it says. Where it can: parallel/nccl_battery.cc.
#include <gtest/gtest.h>

#include "base/errors.h"
#include "parallel/nccl/nccl_communicator.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using ::testing::HasSubstr;

TEST(Nccl, WithoutAGpuEveryRankGetsADeviceErrorThatSaysSo) {
  if (ConnectNccl(*MakeSingleCommunicator(), 0).ok()) GTEST_SKIP() << "this machine has a GPU";
  const auto results =
      testing::RunRanks(3, [](Communicator& cpu) { return ConnectNccl(cpu, cpu.rank()).status(); });
  for (const absl::Status& result : results)
    EXPECT_THAT(result, testing::Fails(ExitCode::kDevice, HasSubstr("NCCL was asked for")));
}

TEST(Nccl, VersionIsKnownOrTheReasonWhyNot) { EXPECT_NE(NcclVersion(), ""); }

}  // namespace
}  // namespace osler
