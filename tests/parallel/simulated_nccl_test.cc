// What Osler does with NCCL, over a simulation of it. Over NCCL itself: parallel/nccl_battery.cc.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <tuple>

#include "base/errors.h"
#include "base/torch_status.h"
#include "parallel/nccl/nccl_communicator.h"
#include "tests/parallel/communicator_battery.h"
#include "tests/parallel/failure_battery.h"
#include "tests/testing/matchers.h"
#include "tests/testing/run_ranks.h"
#include "tests/testing/simulated_nccl.h"

namespace osler {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using testing::BatteryCase;
using testing::Fails;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::NcclSimulation;
using testing::Outcome;
using testing::RunRanks;

class SimulatedNccl : public ::testing::Test {
 protected:
  // Every rank must return OK.
  void Run(int ranks, absl::FunctionRef<void(Communicator& nccl, Communicator& cpu)> body) {
    const auto results = RunRanks(ranks, [&](Communicator& cpu) {
      const auto nccl = ConnectNccl(cpu, cpu.rank(), options_);
      if (!nccl.ok()) return nccl.status();
      body(**nccl, cpu);
      return absl::OkStatus();
    });
    for (const absl::Status& result : results) EXPECT_THAT(result, IsOk());
  }

  NcclSimulation simulation_;
  NcclOptions options_ = {.library = testing::SimulateNccl(simulation_)};
};

class SimulatedNcclBattery : public SimulatedNccl,
                             public ::testing::WithParamInterface<std::tuple<BatteryCase, int>> {};

TEST_P(SimulatedNcclBattery, Holds) {
  const auto& [battery_case, ranks] = GetParam();
  Run(ranks, [&run = battery_case.run](Communicator& nccl, Communicator&) {
    EXPECT_EQ(nccl.backend(), "nccl");
    run(nccl);
  });
}

// Less the CPU's own formulas, and the recorder, which hears of an end a little later.
std::vector<BatteryCase> BatteryOfDevices() {
  std::vector<BatteryCase> cases = testing::CommunicatorBattery();
  std::erase_if(cases, [](const BatteryCase& one) {
    return one.name == "TrafficFollowsTheFormulas" || one.name == "TheRecorderKnowsLastAndPending";
  });
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Ranks, SimulatedNcclBattery,
                         ::testing::Combine(::testing::ValuesIn(BatteryOfDevices()),
                                            ::testing::Values(2, 4)),
                         testing::NameOnRanks);

absl::Status Health(const Communicator& comm) {
  return CatchTorch([&] {
    comm.ThrowIfFailed();
    return absl::OkStatus();
  });
}

Handle Sum(Communicator& comm, const std::string& what = "") {
  return comm.AllReduce(at::ones({4}, at::kFloat), ReduceOp::kSum, what);
}

void WaitUntil(absl::FunctionRef<bool()> done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!done() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(done());
}

TEST_F(SimulatedNccl, WaitHoldsTheStreamAndNotTheCaller) {
  std::atomic<bool> waited = false;
  Run(2, [&](Communicator& nccl, Communicator& cpu) {
    cpu.Barrier().Wait();
    simulation_.default_stream_waits = false;
    const at::Tensor x = at::full({1000}, nccl.rank() + 1.0, at::kFloat);
    if (nccl.rank() == 1) WaitUntil([&] { return waited.load(); });
    Handle handle = nccl.AllReduce(x, ReduceOp::kSum);
    handle.Wait();
    if (nccl.rank() == 0) {
      EXPECT_FALSE(handle.Done());
      ASSERT_EQ(nccl.recorder().Pending().size(), 1u);
      waited = true;
    }
    WaitUntil([&] { return handle.Done(); });
    nccl.ThrowIfFailed();
    EXPECT_TRUE(x.eq(3).all().item<bool>());
    WaitUntil([&] { return nccl.recorder().Pending().empty(); });
    simulation_.default_stream_waits = true;
    cpu.Barrier().Wait();
  });
}

// The first is blamed, not what lies behind it; collectives of the CPU end, too.
TEST_F(SimulatedNccl, ATimeOutIsOfTheWholeRank) {
  options_.timeout = milliseconds(200);
  std::atomic<int> done = 0;
  Run(3, [&](Communicator& nccl, Communicator& cpu) {
    const auto group = nccl.Split(0, nccl.rank(), "shard");
    const auto other = nccl.Split(0, nccl.rank(), "data");
    if (nccl.rank() == 1) return WaitUntil([&] { return done == 2; });
    Handle first = Sum(*group, "model.norm.weight");
    Handle second = Sum(*group, "model.embed_tokens.weight");
    Handle on_cpu = cpu.Barrier();
    const auto told = Fails(
        ExitCode::kDevice,
        HasSubstr("rank " + std::to_string(nccl.rank()) +
                  "'s all-reduce of model.norm.weight in group shard did not end within 200 ms"));
    EXPECT_THAT(Outcome(on_cpu), told);
    EXPECT_THAT(Outcome(second), told);
    EXPECT_THAT(Outcome(first), told);
    EXPECT_THAT(Outcome(Sum(*other)), told);
    EXPECT_THAT(Health(nccl), told);
    const auto pending = nccl.recorder().Pending();
    ASSERT_FALSE(pending.empty());
    EXPECT_EQ(pending.front().what, "model.norm.weight");
    ++done;
  });
}

// What a host reads of a tensor whose collective failed is told apart.
TEST_F(SimulatedNccl, AFailureBehindAWaitIsTold) {
  options_.timeout = milliseconds(100);
  std::atomic<bool> done = false;
  Run(2, [&](Communicator& nccl, Communicator& cpu) {
    cpu.Barrier().Wait();
    simulation_.default_stream_waits = false;
    if (nccl.rank() == 1) return WaitUntil([&] { return done.load(); });
    Handle handle = Sum(nccl);
    EXPECT_THAT(Outcome(handle), IsOk());
    WaitUntil([&] { return handle.Done(); });
    EXPECT_THAT(Health(nccl), Fails(ExitCode::kDevice, HasSubstr("did not end within 100 ms")));
    done = true;
  });
}

TEST_F(SimulatedNccl, AbortFreesWhoTheDeviceHolds) {
  std::atomic<int> done = 0;
  Run(3, [&](Communicator& nccl, Communicator&) {
    const auto group = nccl.Split(0, nccl.rank());
    const auto other = nccl.Split(0, nccl.rank());
    other->PrepareTransfers();
    if (nccl.rank() == 0) return WaitUntil([&] { return done == 2; });
    Handle sum = Sum(*group), receive = other->Receive(at::ones({100'000}, at::kFloat), 0);
    std::thread controller([&] {
      std::this_thread::sleep_for(milliseconds(50));
      nccl.Abort("rank 7 died: killed by signal 9");
    });
    const auto told = Fails(ExitCode::kDevice, HasSubstr("rank 7 died: killed by signal 9"));
    EXPECT_THAT(Outcome(receive), told);
    EXPECT_THAT(Outcome(sum), told);
    controller.join();
    EXPECT_THAT(Outcome(other->Barrier()), told);
    ++done;
  });
}

TEST_F(SimulatedNccl, WhatNcclReportsIsTold) {
  Run(2, [&](Communicator& nccl, Communicator& cpu) {
    cpu.Barrier().Wait();
    Handle handle = Sum(nccl, "gradients");
    simulation_.reports_error = true;
    Handle next = Sum(nccl, "gradients");
    EXPECT_THAT(Outcome(next),
                Fails(ExitCode::kDevice, AllOf(HasSubstr("all-reduce of gradients in group world"),
                                               HasSubstr("NCCL says: remote process exited"))));
  });
}

// The last resort where not even NCCL's abort frees the device.
TEST_F(SimulatedNccl, ARankThatStaysHeldIsSpokenFor) {
  options_.timeout = options_.grace = milliseconds(100);
  std::atomic<int> stuck = 0;
  options_.stuck = [&](const absl::Status& status) {
    EXPECT_THAT(status, Fails(ExitCode::kDevice, HasSubstr("did not end within 100 ms")));
    ++stuck;
  };
  simulation_.abort_is_heard = false;
  Run(2, [&](Communicator& nccl, Communicator& cpu) {
    cpu.Barrier().Wait();
    simulation_.default_stream_waits = false;
    Handle handle = nccl.rank() == 0 ? Sum(nccl) : Handle();
    WaitUntil([&] { return stuck == 1; });
  });
  EXPECT_EQ(stuck, 1);
}

// Nobody is spoken for who has heard.
TEST_F(SimulatedNccl, WhoHearsOfAFailureSpeaksItself) {
  options_.grace = milliseconds(50);
  std::atomic<int> stuck = 0;
  options_.stuck = [&](const absl::Status&) { ++stuck; };
  Run(2, [&](Communicator& nccl, Communicator&) {
    nccl.Abort("over");
    EXPECT_THAT(Outcome(Sum(nccl)), Fails(ExitCode::kDevice, HasSubstr("over")));
    std::this_thread::sleep_for(milliseconds(150));
  });
  EXPECT_EQ(stuck, 0);
}

}  // namespace
}  // namespace osler
