#include "tests/parallel/failure_battery.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/torch_status.h"
#include "tests/testing/matchers.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::chrono::milliseconds kTimeout(kFailureTimeoutMilliseconds);

// Rank 1 calls `odd`, the others `even`: all hear both.
void ExpectDifference(Communicator& comm, Handle (*even)(Communicator&),
                      Handle (*odd)(Communicator&), const std::string& even_words,
                      const std::string& odd_words) {
  SCOPED_TRACE(even_words + " / " + odd_words);
  const auto group = comm.Split(0, comm.rank(), "odd");
  group->Barrier().Wait();
  const absl::Status told = Outcome(comm.rank() == 1 ? odd(*group) : even(*group));
  EXPECT_THAT(told, Fails(ExitCode::kDevice, AllOf(HasSubstr("different collectives in group odd"),
                                                   HasSubstr(absl::StrCat("rank 0 ", even_words)),
                                                   HasSubstr(absl::StrCat("rank 1 ", odd_words)))));
  // The group is of no further use, and says so.
  EXPECT_THAT(Outcome(group->Barrier()), Fails(ExitCode::kDevice, HasSubstr(even_words)));
}

template <int64_t n>
Handle SumFloats(Communicator& comm) {
  return comm.AllReduce(at::ones({n}, at::kFloat), ReduceOp::kSum);
}

void DifferentCollectivesAreToldApart(Communicator& comm) {
  if (comm.size() == 1) return;
  const auto barrier = [](Communicator& c) { return c.Barrier(); };
  const auto maximum = [](Communicator& c) {
    return c.AllReduce(at::ones({4}, at::kFloat), ReduceOp::kMax);
  };
  const auto doubles = [](Communicator& c) {
    return c.AllReduce(at::ones({4}, at::kDouble), ReduceOp::kSum);
  };
  const auto from_0 = [](Communicator& c) { return c.Broadcast(at::ones({9}, at::kLong), 0); };
  const auto from_1 = [](Communicator& c) { return c.Broadcast(at::ones({9}, at::kLong), 1); };
  const auto pieces = [](Communicator& c) {
    return c.AllGather({at::ones({c.size() * 5000}, at::kFloat)});
  };
  ExpectDifference(comm, SumFloats<4>, SumFloats<5>, "all-reduce of 4 Float (sum)",
                   "all-reduce of 5 Float (sum)");
  ExpectDifference(comm, SumFloats<4>, SumFloats<500'000>, "all-reduce of 4 Float (sum)",
                   "all-reduce of 500000 Float (sum)");
  ExpectDifference(comm, SumFloats<4>, barrier, "all-reduce of 4 Float (sum)", "barrier");
  ExpectDifference(comm, SumFloats<4>, maximum, "all-reduce of 4 Float (sum)",
                   "all-reduce of 4 Float (max)");
  ExpectDifference(comm, SumFloats<4>, doubles, "all-reduce of 4 Float (sum)",
                   "all-reduce of 4 Double (sum)");
  ExpectDifference(comm, from_0, from_1, "broadcast of 9 Long (root 0)",
                   "broadcast of 9 Long (root 1)");
  ExpectDifference(comm, pieces, SumFloats<500'000>,
                   absl::StrCat("all-gather of ", comm.size() * 5000, " Float"),
                   "all-reduce of 500000 Float (sum)");
}

// Two tensors whose sizes differ though their sum does not.
void DifferentTensorsAreToldApart(Communicator& comm) {
  if (comm.size() == 1) return;
  const auto group = comm.Split(0, comm.rank());
  const int64_t n = comm.size(), first = comm.rank() == 1 ? 2 : 1;
  const absl::Status told = Outcome(group->AllGather(
      {at::ones({n * first}, at::kFloat), at::ones({n * (3 - first)}, at::kFloat)}));
  EXPECT_THAT(told, Fails(ExitCode::kDevice, HasSubstr("different collectives")));
}

// An empty collective moves nothing, but counts: a rank that alone has nothing is found out.
void ASkippedCollectiveIsNoticed(Communicator& comm) {
  if (comm.size() == 1) return;
  const auto group = comm.Split(0, comm.rank());
  if (comm.rank() == 1) {
    EXPECT_THAT(Outcome(group->AllReduce(at::ones({0}, at::kFloat), ReduceOp::kSum)), IsOk());
  }
  const absl::Status told = Outcome(SumFloats<4>(*group));
  EXPECT_THAT(told, Fails(ExitCode::kDevice, HasSubstr("(calls number 1 and 2 of the group)")));
}

void AnAllToAllThatDisagreesIsTold(Communicator& comm) {
  if (comm.size() == 1) return;
  const auto group = comm.Split(0, comm.rank());
  std::vector<at::Tensor> send, receive;
  for (int r = 0; r < comm.size(); ++r) {
    send.push_back(at::ones({comm.rank() == 0 && r == 1 ? 7 : 3}, at::kFloat));
    receive.push_back(at::ones({3}, at::kFloat));
  }
  const absl::Status told = Outcome(group->AllToAll(send, receive));
  if (comm.rank() > 1) {
    EXPECT_THAT(told, IsOk());
    return;
  }
  EXPECT_THAT(told,
              Fails(ExitCode::kDevice, AllOf(HasSubstr("rank 0 sends 7 and expects 3 Float"),
                                             HasSubstr("rank 1 sends 3 and expects 3 Float"))));
}

void ATransferOfAnotherSizeIsTold(Communicator& comm) {
  if (comm.size() == 1) return;
  for (const int64_t sent : {3, 70, 40'000}) {
    const auto group = comm.Split(0, comm.rank());
    if (comm.rank() == 0) (void)group->Send(at::ones({sent}, at::kFloat), 1);
    if (comm.rank() == 1) {
      const absl::Status told = Outcome(group->Receive(at::ones({10}, at::kFloat), 0, "hidden"));
      EXPECT_THAT(told,
                  Fails(ExitCode::kDevice,
                        HasSubstr(absl::StrCat("rank 1's receive of 10 Float, hidden in group "
                                               "group met rank 0's send of ",
                                               sent, " Float"))));
    }
  }
}

void ATimeOutNamesWhoIsMissing(Communicator& comm) {
  if (comm.size() == 1) return;
  const auto group = comm.Split(0, comm.rank(), "shard");
  comm.Barrier().Wait();
  if (comm.rank() == 1) {
    std::this_thread::sleep_for(kTimeout * 1.2);
    return;
  }
  Handle handle = group->AllReduce(at::ones({4}, at::kFloat), ReduceOp::kSum, "model.norm.weight");
  Handle behind = group->Barrier();
  EXPECT_THAT(Outcome(std::move(handle)),
              Fails(ExitCode::kDevice,
                    HasSubstr(absl::StrCat(
                        "rank ", comm.rank(),
                        "'s all-reduce of 4 Float (sum), model.norm.weight in group shard did not "
                        "end within 3000 ms: it waits for rank 1;"))));
  EXPECT_THAT(Outcome(std::move(behind)), Fails(ExitCode::kDevice, HasSubstr("norm.weight")));
  const auto pending = comm.recorder().Pending();
  ASSERT_GE(pending.size(), 2u);
  EXPECT_EQ(pending[pending.size() - 2].what, "model.norm.weight");
  EXPECT_EQ(comm.recorder().LastCompleted()->operation, "barrier");
}

// From another thread, while this one waits; the reason is what every wait says from then on.
void AbortEndsEveryWait(Communicator& comm) {
  if (comm.size() == 1) return;
  const auto group = comm.Split(0, comm.rank());
  const auto other = comm.Split(0, comm.rank());
  other->PrepareTransfers();
  comm.Barrier().Wait();
  Handle first = comm.rank() == 0 ? Handle() : group->Barrier();  // rank 0 never comes
  const int peer = (comm.rank() + 1) % comm.size();
  Handle second = other->Receive(at::ones({100'000}, at::kFloat), peer);
  std::thread controller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    comm.Abort("rank 7 died: killed by signal 9");
  });
  EXPECT_THAT(Outcome(std::move(second)), Fails(ExitCode::kDevice, HasSubstr("rank 7 died")));
  controller.join();
  if (comm.rank() != 0) {
    EXPECT_THAT(Outcome(std::move(first)), Fails(ExitCode::kDevice, HasSubstr("rank 7 died")));
  }
  EXPECT_THAT(Outcome(comm.Barrier()), Fails(ExitCode::kDevice, HasSubstr("rank 7 died")));
  EXPECT_THAT(Outcome(group->Send(at::ones({1}, at::kFloat), peer)),
              Fails(ExitCode::kDevice, HasSubstr("killed by signal 9")));
  std::this_thread::sleep_for(kTimeout / 2);  // thread ranks must not hear that this one left
}

}  // namespace

absl::Status Outcome(Handle handle) {
  return CatchTorch([&] {
    handle.Wait();
    return absl::OkStatus();
  });
}

std::vector<BatteryCase> FailureBattery() {
  return {
      {"DifferentCollectivesAreToldApart", DifferentCollectivesAreToldApart},
      {"DifferentTensorsAreToldApart", DifferentTensorsAreToldApart},
      {"ASkippedCollectiveIsNoticed", ASkippedCollectiveIsNoticed},
      {"AnAllToAllThatDisagreesIsTold", AnAllToAllThatDisagreesIsTold},
      {"ATransferOfAnotherSizeIsTold", ATransferOfAnotherSizeIsTold},
      {"ATimeOutNamesWhoIsMissing", ATimeOutNamesWhoIsMissing},
      {"AbortEndsEveryWait", AbortEndsEveryWait},
  };
}

}  // namespace osler::testing
