#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "base/errors.h"
#include "parallel/mesh.h"
#include "tests/parallel/communicator_battery.h"
#include "tests/testing/matchers.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void SplitMakesOrderedGroups(Communicator& comm) {
  const int color = comm.rank() % 2;
  const std::unique_ptr<Communicator> half = comm.Split(color, -comm.rank());  // reversed order
  const int members = (comm.size() + 1 - color) / 2;
  EXPECT_EQ(half->size(), members);
  EXPECT_EQ(half->rank(), members - 1 - comm.rank() / 2);
  at::Tensor x = at::full({2}, comm.rank(), at::kLong);
  half->AllReduce(x, ReduceOp::kSum).Wait();
  int64_t expected = 0;
  for (int r = color; r < comm.size(); r += 2) expected += r;
  EXPECT_EQ(x[0].item<int64_t>(), expected);

  const std::unique_ptr<Communicator> own = comm.Split(comm.rank(), 0);
  EXPECT_EQ(own->size(), 1);
  own->Barrier().Wait();
  const std::unique_ptr<Communicator> same = comm.Split(0, 0);
  EXPECT_EQ(same->rank(), comm.rank());
  same->Barrier().Wait();
}

void MeshAxesSumOverTheirRanks(Communicator& comm) {
  MeshShape shape;
  const int tensor = comm.size() % 2 == 0 ? 2 : 1;
  shape.sizes[static_cast<size_t>(Axis::kTensor)] = tensor;
  shape.sizes[static_cast<size_t>(Axis::kData)] = comm.size() / tensor;
  ASSERT_OK_AND_ASSIGN(const Mesh mesh, Mesh::Create(shape, comm));
  at::Tensor across = at::full({1}, comm.rank(), at::kLong);
  mesh.comm(Axis::kTensor)
      .AllReduce(across, ReduceOp::kSum)
      .Wait();  // neighbours: the innermost axis
  const int64_t base = comm.rank() / tensor * tensor;
  EXPECT_EQ(across.item<int64_t>(), tensor == 2 ? 2 * base + 1 : base);
  at::Tensor along = at::full({1}, comm.rank(), at::kLong);
  mesh.comm(Axis::kData).AllReduce(along, ReduceOp::kSum).Wait();
  int64_t expected = 0;
  for (int r = comm.rank() % tensor; r < comm.size(); r += tensor) expected += r;
  EXPECT_EQ(along.item<int64_t>(), expected);
  EXPECT_EQ(mesh.coordinate(Axis::kData), comm.rank() / tensor);
  EXPECT_EQ(mesh.coordinate(Axis::kTensor), comm.rank() % tensor);
  EXPECT_EQ(mesh.coordinate(Axis::kShard), 0);
  if (tensor == 2) {
    EXPECT_EQ(mesh.comm(Axis::kTensor).name(), "tensor");
  }
  EXPECT_EQ(mesh.comm(Axis::kPipeline).size(), 1);
}

void StatusIsAgreedOn(Communicator& comm) {
  const ExitCode classes[] = {ExitCode::kConfig, ExitCode::kData,       ExitCode::kDevice,
                              ExitCode::kBug,    ExitCode::kCheckpoint, ExitCode::kStopped};
  EXPECT_THAT(AgreeOnStatus(comm, absl::OkStatus()), IsOk());
  for (const ExitCode code : classes) {
    for (int failing = 0; failing < comm.size(); ++failing) {
      const bool fails = comm.rank() == failing;
      const absl::Status agreed = AgreeOnStatus(
          comm, fails ? MakeError(code, "notes.jsonl:7: bad line") : absl::OkStatus());
      const std::string prefix = comm.size() > 1 ? "rank " + std::to_string(failing) + ": " : "";
      EXPECT_THAT(agreed, Fails(code, prefix + "notes.jsonl:7: bad line"));
    }
  }
  EXPECT_THAT(AgreeOnStatus(comm, absl::OkStatus()), IsOk());
}

void LowestFailingRankIsHeard(Communicator& comm) {
  if (comm.size() < 3) return;
  absl::Status local;
  if (comm.rank() == 1) local = DataError("first");
  if (comm.rank() == 2) local = ConfigError("second");
  EXPECT_THAT(AgreeOnStatus(comm, local),
              Fails(ExitCode::kData, AllOf(HasSubstr("rank 1: first"), Not(HasSubstr("second")))));
}

void LongAndEmptyMessagesTravel(Communicator& comm) {
  const int last = comm.size() - 1;
  const std::string text(100'001, 'x');
  const std::string prefix = comm.size() > 1 ? "rank " + std::to_string(last) + ": " : "";
  for (const std::string& message : {text, std::string()}) {
    const absl::Status local = comm.rank() == last ? DataError(message) : absl::OkStatus();
    EXPECT_THAT(AgreeOnStatus(comm, local), Fails(ExitCode::kData, prefix + message));
  }
}

// A ring in both directions at once, large enough that nothing fits buffers; three rounds in
// flight arrive in the order sent.
void TransfersCrossWithoutDeadlock(Communicator& comm) {
  if (comm.size() == 1) return;
  comm.PrepareTransfers();
  const int next = (comm.rank() + 1) % comm.size();
  const int last = (comm.rank() + comm.size() - 1) % comm.size();
  std::vector<Handle> handles;
  std::vector<at::Tensor> kept, forward, backward;
  for (int round = 0; round < 3; ++round) {
    const int64_t n = round == 1 ? 1 : 300'000;
    kept.push_back(at::full({n}, comm.rank() * 10 + round, at::kFloat));
    forward.push_back(at::zeros({n}, at::kFloat));
    backward.push_back(at::zeros({n}, at::kFloat));
    handles.push_back(comm.Send(kept.back(), next));
    handles.push_back(comm.Send(kept.back(), last));
    handles.push_back(comm.Receive(forward.back(), last));
    handles.push_back(comm.Receive(backward.back(), next));
  }
  for (Handle& handle : handles) handle.Wait();
  for (int round = 0; round < 3; ++round) {
    const auto i = static_cast<size_t>(round);
    // With two ranks both neighbours are the same one and both tensors hold the same value.
    EXPECT_TRUE(forward[i].eq(last * 10 + round).all().item<bool>());
    EXPECT_TRUE(backward[i].eq(next * 10 + round).all().item<bool>());
  }
}

// A rank that waits for what its neighbour makes of what it sends it later.
void AReceiveHoldsUpNoSend(Communicator& comm) {
  const auto line = comm.Split(0, comm.rank(), "line");
  line->PrepareTransfers();
  const int last = line->size() - 1, rank = line->rank();
  at::Tensor there = at::zeros({70'000}, at::kDouble), back = at::zeros({70'000}, at::kDouble);
  Handle down = rank < last ? line->Receive(back, rank + 1) : Handle();
  Handle up = rank > 0 ? line->Receive(there, rank - 1) : Handle();
  up.Wait();
  there.add_(1);
  if (rank < last) {
    Handle sent = line->Send(there, rank + 1);
    down.Wait();
    sent.Wait();
  } else {
    back.copy_(there);
  }
  if (rank > 0) line->Send(back, rank - 1).Wait();
  EXPECT_TRUE(back.eq(line->size()).all().item<bool>());
}

// Everything at once in three groups, started and waited for in orders that differ from rank to
// rank.
void GroupsDoNotWaitForEachOther(Communicator& comm) {
  const auto rows = comm.Split(comm.rank() / 2, comm.rank(), "rows");
  const auto columns = comm.Split(comm.rank() % 2, comm.rank(), "columns");
  Communicator* groups[] = {&comm, rows.get(), columns.get()};
  constexpr int kRounds = 5;
  std::vector<at::Tensor> xs[3];
  std::vector<Handle> handles;
  for (int turn = 0; turn < 3; ++turn) {
    const auto g = static_cast<size_t>((turn + comm.rank()) % 3);
    for (int round = 0; round < kRounds; ++round) {
      const int64_t n = round % 2 == 0 ? 3 : 60'000;
      xs[g].push_back(at::full({n}, comm.rank() + 1.0, at::kDouble));
      handles.push_back(groups[g]->AllReduce(xs[g].back(), ReduceOp::kSum));
    }
  }
  for (size_t i = 0; i < handles.size(); ++i) {
    const size_t step = comm.rank() % 2 == 0 ? i : handles.size() - 1 - i;
    handles[step].Wait();
  }
  for (size_t g = 0; g < 3; ++g) {
    double expected = 0;
    for (int r = 0; r < comm.size(); ++r) {
      if (g == 1 && r / 2 != comm.rank() / 2) continue;
      if (g == 2 && r % 2 != comm.rank() % 2) continue;
      expected += r + 1.0;
    }
    for (const at::Tensor& x : xs[g]) EXPECT_TRUE(x.eq(expected).all().item<bool>());
  }
}

void DroppedHandlesGoOn(Communicator& comm) {
  at::Tensor x = at::full({50'000}, 1.0, at::kFloat);
  (void)comm.AllReduce(x, ReduceOp::kSum);
  // Kept alive by nobody else.
  (void)comm.AllReduce(at::ones({20'000}, at::kFloat), ReduceOp::kSum);
  comm.Barrier().Wait();  // collectives of a group run in order
  EXPECT_TRUE(x.eq(comm.size()).all().item<bool>());
}

void ItGoesOnWithoutAWait(Communicator& comm) {
  at::Tensor x = at::full({1'000'003}, 1.0, at::kFloat);
  Handle handle = comm.AllReduce(x, ReduceOp::kSum);
  at::Tensor busy = at::ones({64, 64}, at::kFloat);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!handle.Done() && std::chrono::steady_clock::now() < deadline) busy = at::mm(busy, busy);
  EXPECT_TRUE(handle.Done());
  EXPECT_TRUE(x.eq(comm.size()).all().item<bool>());
}

void TrafficFollowsTheFormulas(Communicator& comm) {
  const std::unique_ptr<Communicator> group = comm.Split(0, comm.rank(), "counted");
  const int64_t n = comm.size(), others = n - 1;
  int64_t sent = 0;
  const auto expect = [&](int64_t bytes) {
    sent += bytes;
    EXPECT_EQ(group->traffic().bytes_sent, sent);
  };
  expect(0);
  const int64_t equal = 64 * n * 100;  // slices of equal size, one piece
  group->AllReduce(at::ones({equal}, at::kFloat), ReduceOp::kSum).Wait();
  expect(2 * equal * 4 * others / n);
  group->AllReduce(at::ones({100}, at::kDouble), ReduceOp::kSum).Wait();  // small
  expect(800 * others);
  group->AllGather({at::ones({7 * n}, at::kFloat), at::ones({9000 * n}, at::kBFloat16)}).Wait();
  expect((7 * 4 + 9000 * 2) * others);
  group->ReduceScatter({at::ones({7 * n}, at::kFloat), at::ones({9000 * n}, at::kBFloat16)}).Wait();
  expect((7 * 4 + 9000 * 2) * others);
  group->Broadcast(at::ones({5000}, at::kLong), 0).Wait();
  expect(group->rank() == 0 ? 40'000 * others : 0);
  std::vector<at::Tensor> send, receive;
  for (int r = 0; r < comm.size(); ++r) {
    send.push_back(at::ones({1000 * r}, at::kFloat));
    receive.push_back(at::ones({1000 * group->rank()}, at::kFloat));
  }
  group->AllToAll(send, receive).Wait();
  expect(4000 * (n * others / 2 - group->rank()));
  group->Barrier().Wait();
  expect(0);
  int64_t started = 7;
  if (n > 1) {
    group->PrepareTransfers();
    at::Tensor x = at::ones({1000}, at::kFloat);
    if (group->rank() == 0) group->Send(x, 1).Wait();
    if (group->rank() == 1) group->Receive(x, 0).Wait();
    expect(group->rank() == 0 ? 4000 : 0);
    started += group->rank() < 2;
  }
  EXPECT_EQ(group->traffic().collectives, n == 1 ? 0 : started);
}

void TheRecorderKnowsLastAndPending(Communicator& comm) {
  if (comm.size() == 1) return;
  const std::unique_ptr<Communicator> group = comm.Split(0, comm.rank(), "tensor");
  comm.recorder().SetBlock("layer 3");
  group->AllReduce(at::ones({10}, at::kFloat), ReduceOp::kSum, "model.norm.weight").Wait();
  const auto last = group->recorder().LastCompleted();
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->operation, "all-reduce");
  EXPECT_EQ(last->what, "model.norm.weight");
  EXPECT_EQ(last->group, "tensor");
  EXPECT_EQ(last->block, "layer 3");
  EXPECT_EQ(last->bytes, 40);
  EXPECT_TRUE(comm.recorder().Pending().empty());
  comm.PrepareTransfers();
  Handle receive;
  at::Tensor x = at::zeros({2}, at::kLong);
  if (comm.rank() == 1) {
    receive = comm.Receive(x, 0, "late");
    const auto pending = comm.recorder().Pending();
    ASSERT_EQ(pending.size(), 1u);
    EXPECT_EQ(pending[0].what, "late");
    EXPECT_EQ(pending[0].number, last->number + 1);
  }
  group->Barrier().Wait();
  if (comm.rank() == 0) comm.Send(x, 1).Wait();
  receive.Wait();
  EXPECT_TRUE(comm.recorder().Pending().empty());
  for (size_t i = 0; i < FlightRecorder::kCapacity + 3; ++i) group->Barrier().Wait();
  EXPECT_EQ(comm.recorder().Entries().size(), FlightRecorder::kCapacity);
  comm.recorder().SetBlock("");
}

}  // namespace

std::vector<BatteryCase> OrderBattery() {
  return {
      {"SplitMakesOrderedGroups", SplitMakesOrderedGroups},
      {"MeshAxesSumOverTheirRanks", MeshAxesSumOverTheirRanks},
      {"StatusIsAgreedOn", StatusIsAgreedOn},
      {"LowestFailingRankIsHeard", LowestFailingRankIsHeard},
      {"LongAndEmptyMessagesTravel", LongAndEmptyMessagesTravel},
      {"TransfersCrossWithoutDeadlock", TransfersCrossWithoutDeadlock},
      {"AReceiveHoldsUpNoSend", AReceiveHoldsUpNoSend},
      {"GroupsDoNotWaitForEachOther", GroupsDoNotWaitForEachOther},
      {"DroppedHandlesGoOn", DroppedHandlesGoOn},
      {"ItGoesOnWithoutAWait", ItGoesOnWithoutAWait},
      {"TrafficFollowsTheFormulas", TrafficFollowsTheFormulas},
      {"TheRecorderKnowsLastAndPending", TheRecorderKnowsLastAndPending},
  };
}

std::vector<BatteryCase> CommunicatorBattery() {
  std::vector<BatteryCase> cases = ValueBattery(), others = OrderBattery();
  cases.insert(cases.end(), others.begin(), others.end());
  return cases;
}

}  // namespace osler::testing
