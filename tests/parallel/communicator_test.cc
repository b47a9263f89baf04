// The communicator battery over thread ranks, and what thread ranks promise besides: nobody waits
// for a rank that left.
#include "parallel/communicator.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "base/errors.h"
#include "base/torch_status.h"
#include "parallel/local/local_communicator.h"
#include "tests/parallel/communicator_battery.h"
#include "tests/parallel/failure_battery.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"

namespace osler {
namespace {

using ::testing::AllOf;
using testing::BatteryCase;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::RunRanks;

class LocalBattery : public ::testing::TestWithParam<std::tuple<BatteryCase, int>> {};

TEST_P(LocalBattery, Holds) {
  const auto& [battery_case, ranks] = GetParam();
  const auto results = RunRanks(ranks, [&run = battery_case.run](Communicator& comm) {
    EXPECT_EQ(comm.backend(), "local");
    run(comm);
    return absl::OkStatus();
  });
  for (const absl::Status& result : results) EXPECT_THAT(result, IsOk());
}

INSTANTIATE_TEST_SUITE_P(Ranks, LocalBattery,
                         ::testing::Combine(::testing::ValuesIn(testing::CommunicatorBattery()),
                                            ::testing::Values(1, 2, 3, 4, 5, 8)),
                         testing::NameOnRanks);

TEST(SingleCommunicator, HoldsTheBattery) {
  for (const BatteryCase& battery_case : testing::CommunicatorBattery()) {
    SCOPED_TRACE(battery_case.name);
    battery_case.run(*MakeSingleCommunicator());
  }
}

TEST(LocalCommunicator, NobodyPassesABarrierEarly) {
  std::atomic<int> arrived{0};
  const auto results = RunRanks(4, [&](Communicator& comm) {
    for (int round = 1; round <= 200; ++round) {
      ++arrived;
      comm.Barrier().Wait();
      if (arrived < 4 * round) return MakeError(ExitCode::kBug, "passed early");
      comm.Barrier().Wait();
    }
    return absl::OkStatus();
  });
  for (const absl::Status& result : results) EXPECT_THAT(result, IsOk());
}

// Rank 2 ends by `leave` while the others go on; they must hear of it.
void ExpectOthersHear(absl::FunctionRef<absl::Status()> leave,
                      absl::FunctionRef<void(Communicator&)> wait) {
  const auto results = RunRanks(4, [&](Communicator& comm) {
    at::Tensor x = at::ones({10}, at::kFloat);
    comm.AllReduce(x, ReduceOp::kSum).Wait();
    if (comm.rank() == 2) return leave();
    wait(comm);
    return absl::OkStatus();
  });
  for (const int r : {0, 1, 3}) {
    EXPECT_THAT(results[static_cast<size_t>(r)],
                Fails(ExitCode::kDevice, AllOf(HasSubstr("rank 2 left before the "),
                                               HasSubstr("rank 2's own error"))));
  }
}

TEST(LocalCommunicator, ARankThatReturnsIsNotWaitedFor) {
  ExpectOthersHear([] { return absl::OkStatus(); },
                   [](Communicator& comm) { comm.Barrier().Wait(); });
}

TEST(LocalCommunicator, ARankThatThrowsIsNotWaitedFor) {
  ExpectOthersHear([]() -> absl::Status { throw std::runtime_error("broken"); },
                   [](Communicator& comm) {
                     at::Tensor x = at::ones({100'000}, at::kDouble);
                     comm.AllReduce(x, ReduceOp::kSum).Wait();
                   });
}

TEST(LocalCommunicator, ARankThatFailsIsNotWaitedForInItsSubgroup) {
  const auto results = RunRanks(4, [](Communicator& comm) {
    const auto half = comm.Split(comm.rank() / 2, comm.rank());
    if (comm.rank() == 2) return DataError("bad shard");
    half->Barrier().Wait();
    return absl::OkStatus();
  });
  EXPECT_THAT(results[0], IsOk());
  EXPECT_THAT(results[1], IsOk());
  EXPECT_THAT(results[2], Fails(ExitCode::kData, "bad shard"));
  EXPECT_THAT(results[3], Fails(ExitCode::kDevice,
                                HasSubstr("rank 2 left before the barrier that rank 3 waited in")));
}

TEST(LocalCommunicator, AbandonIsHeardWhileTheRankLives) {
  std::atomic<bool> heard{false};
  const auto results = RunRanks(2, [&](Communicator& comm) {
    if (comm.rank() == 1) {
      comm.Abandon();
      while (!heard) std::this_thread::yield();
      return absl::OkStatus();
    }
    const absl::Status told = CatchTorch([&] {
      comm.Barrier().Wait();
      return absl::OkStatus();
    });
    heard = true;
    return told;
  });
  EXPECT_THAT(results[0], Fails(ExitCode::kDevice,
                                HasSubstr("rank 1 left before the barrier that rank 0 waited in")));
  EXPECT_THAT(results[1], IsOk());
}

class LocalFailures : public ::testing::TestWithParam<std::tuple<BatteryCase, int>> {};

TEST_P(LocalFailures, AreTold) {
  const auto& [battery_case, ranks] = GetParam();
  const CommunicatorOptions options{
      std::chrono::milliseconds(testing::kFailureTimeoutMilliseconds)};
  const auto results = RunRanks(
      ranks,
      [&run = battery_case.run](Communicator& comm) {
        run(comm);
        return absl::OkStatus();
      },
      options);
  for (const absl::Status& result : results) EXPECT_THAT(result, IsOk());
}

INSTANTIATE_TEST_SUITE_P(Ranks, LocalFailures,
                         ::testing::Combine(::testing::ValuesIn(testing::FailureBattery()),
                                            ::testing::Values(2, 4)),
                         testing::NameOnRanks);

// What a rank has given stays given: it may leave before the others have come.
TEST(LocalCommunicator, ARankThatLeavesAfterItsPartIsNotMissed) {
  const auto results = RunRanks(3, [](Communicator& comm) {
    at::Tensor x = at::ones({100'000}, at::kFloat);
    const auto group = comm.Split(0, comm.rank());
    if (comm.rank() == 1) {
      (void)group->AllReduce(x, ReduceOp::kSum);
      return absl::OkStatus();  // without a wait
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    group->AllReduce(x, ReduceOp::kSum).Wait();
    return x[7].item<float>() == 3 ? absl::OkStatus() : MakeError(ExitCode::kBug, "wrong sum");
  });
  for (const absl::Status& result : results) EXPECT_THAT(result, IsOk());
}

TEST(LocalCommunicator, AHandleThatOutlivesItsWorldFails) {
  std::vector<std::unique_ptr<Communicator>> world = MakeLocalGroup(2);
  Handle handle = world[0]->Barrier();
  world.clear();
  EXPECT_TRUE(handle.Done());
  EXPECT_THROW(handle.Wait(), c10::DistError);
}

}  // namespace
}  // namespace osler
