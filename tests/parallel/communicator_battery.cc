#include "tests/parallel/communicator_battery.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <string>

#include "base/errors.h"
#include "parallel/mesh.h"
#include "tests/testing/matchers.h"

namespace osler::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong};

// The largest one, several pieces, for one dtype and few ranks only: inputs are slow to make.
std::vector<int64_t> SizesFor(at::ScalarType dtype, int ranks) {
  if (ranks > 4) return {0, 1, 7, 4097, 20'003};
  return {0, 1, 7, 4097, dtype == at::kFloat ? 1'100'003 : 100'003};
}

// Rank r's input: values over six decades whose sum depends on the order of addition.
at::Tensor Input(int rank, int64_t n, at::ScalarType dtype) {
  const at::Tensor i = at::arange(n, at::kDouble);
  if (dtype == at::kLong)
    return (i * 7919 + rank * 104729).remainder(1'000'003).sub(500'000).to(at::kLong);
  const at::Tensor magnitude = at::pow(10.0, (i + rank).remainder(7) - 3);
  return (at::sin(i * 12.9898 + (rank + 1) * 78.233) * magnitude).to(dtype);
}

std::vector<at::Tensor> Inputs(int ranks, int64_t n, at::ScalarType dtype) {
  std::vector<at::Tensor> inputs;
  for (int r = 0; r < ranks; ++r) inputs.push_back(Input(r, n, dtype));
  return inputs;
}

// LibTorch's own arithmetic in rank order, bf16 through fp32.
at::Tensor Expected(const std::vector<at::Tensor>& inputs, ReduceOp op) {
  const at::ScalarType dtype = inputs[0].scalar_type();
  const at::ScalarType wide = dtype == at::kBFloat16 ? at::kFloat : dtype;
  at::Tensor total = inputs[0].to(wide);
  for (size_t r = 1; r < inputs.size(); ++r) {
    const at::Tensor next = inputs[r].to(wide);
    total = op == ReduceOp::kSum ? total + next : at::maximum(total, next);
  }
  return total.to(dtype);
}

void AllReduceEqualsRankOrder(Communicator& comm) {
  for (const at::ScalarType dtype : kDtypes) {
    for (const int64_t n : SizesFor(dtype, comm.size())) {
      const std::vector<at::Tensor> inputs = Inputs(comm.size(), n, dtype);
      for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
        SCOPED_TRACE(std::string(c10::toString(dtype)) + " of " + std::to_string(n));
        at::Tensor x = inputs[static_cast<size_t>(comm.rank())].clone();
        comm.AllReduce(x, op).Wait();
        EXPECT_TRUE(x.equal(Expected(inputs, op)));
      }
    }
  }
}

void Fp64SumOfIntegersIsExact(Communicator& comm) {
  const int64_t n = 1'300'001;  // more than one piece of the MPI back-end
  const int64_t ranks = comm.size();
  const at::Tensor i = at::arange(n, at::kDouble);
  at::Tensor x = i * (comm.rank() + 1) + comm.rank();
  comm.AllReduce(x, ReduceOp::kSum).Wait();
  const auto* values = x.const_data_ptr<double>();
  int64_t wrong = 0;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t expected = k * (ranks * (ranks + 1) / 2) + ranks * (ranks - 1) / 2;
    wrong += values[k] != static_cast<double>(expected);
  }
  EXPECT_EQ(wrong, 0);
}

void Bf16IsReducedInFp32(Communicator& comm) {
  // bf16 has 8 significant bits: 256 + 1 rounds back to 256 at every step, while fp32 keeps the
  // ones.
  at::Tensor x = at::full({100}, comm.rank() == 0 ? 256.0 : 1.0, at::kBFloat16);
  comm.AllReduce(x, ReduceOp::kSum).Wait();
  const at::Tensor expected = at::full({100}, 255.0 + comm.size(), at::kFloat).to(at::kBFloat16);
  EXPECT_TRUE(x.equal(expected)) << x[0].item<float>();
}

void Int64KeepsEveryBit(Communicator& comm) {
  const int64_t big = (int64_t{1} << 60) + 1;
  at::Tensor x = at::full({3}, comm.rank() == 0 ? big : int64_t{1}, at::kLong);
  comm.AllReduce(x, ReduceOp::kSum).Wait();
  EXPECT_EQ(x[2].item<int64_t>(), big + comm.size() - 1);
}

void MaxKeepsNan(Communicator& comm) {
  for (int bad = 0; bad < comm.size(); ++bad) {
    at::Tensor x = at::full({5}, 1.0 + comm.rank(), at::kFloat);
    if (comm.rank() == bad) x[3] = std::numeric_limits<float>::quiet_NaN();
    comm.AllReduce(x, ReduceOp::kMax).Wait();
    EXPECT_TRUE(std::isnan(x[3].item<float>()));
    EXPECT_EQ(x[2].item<float>(), static_cast<float>(comm.size()));
  }
}

void RunsRepeatBitForBit(Communicator& comm) {
  const at::Tensor input = Input(comm.rank(), 500'009, at::kFloat);
  at::Tensor first = input.clone();
  comm.AllReduce(first, ReduceOp::kSum).Wait();
  at::Tensor of_rank_0 = first.clone();
  comm.Broadcast(of_rank_0, 0).Wait();
  EXPECT_TRUE(first.equal(of_rank_0));
  for (int run = 0; run < 3; ++run) {
    at::Tensor again = input.clone();
    comm.AllReduce(again, ReduceOp::kSum).Wait();
    EXPECT_TRUE(again.equal(first));
  }
}

void ManySmallCollectivesInARow(Communicator& comm) {
  for (int64_t k = 0; k < 200; ++k) {
    at::Tensor x = at::full({k % 9 + 1}, k + comm.rank(), at::kLong);
    comm.AllReduce(x, ReduceOp::kSum).Wait();
    const int64_t n = comm.size();
    ASSERT_EQ(x[0].item<int64_t>(), n * k + n * (n - 1) / 2);
    if (k % 10 == 0) comm.Barrier().Wait();
  }
}

void AViewIsReducedAndNothingBesideIt(Communicator& comm) {
  at::Tensor whole = at::ones({30}, at::kDouble);
  at::Tensor view = whole.narrow(0, 10, 10);
  comm.AllReduce(view, ReduceOp::kSum).Wait();
  EXPECT_EQ(whole.sum().item<double>(), 20.0 + 10.0 * comm.size());
}

void BroadcastFromEveryRoot(Communicator& comm) {
  for (const at::ScalarType dtype : kDtypes) {
    for (const int64_t n : SizesFor(dtype, comm.size())) {
      const int root = static_cast<int>(n % comm.size());
      at::Tensor x = Input(comm.rank(), n, dtype);
      comm.Broadcast(x, root).Wait();
      EXPECT_TRUE(x.equal(Input(root, n, dtype)));
    }
  }
  for (int root = 0; root < comm.size(); ++root) {
    at::Tensor x = at::full({3}, comm.rank(), at::kLong);
    comm.Broadcast(x, root).Wait();
    EXPECT_EQ(x[1].item<int64_t>(), root);
  }
}

void BadTensorsAreRefused(Communicator& comm) {
  at::Tensor strided = at::ones({4, 4}, at::kFloat).t();
  strided = strided.narrow(0, 0, 2);
  EXPECT_THROW(comm.AllReduce(strided, ReduceOp::kSum).Wait(), c10::Error);
  at::Tensor half = at::ones({4}, at::kHalf);
  EXPECT_THROW(comm.Broadcast(half, 0).Wait(), c10::Error);
  at::Tensor fine = at::ones({4}, at::kFloat);
  EXPECT_THROW(comm.Broadcast(fine, comm.size()).Wait(), c10::Error);
  comm.AllReduce(fine, ReduceOp::kSum).Wait();  // the group still works
  EXPECT_EQ(fine[0].item<float>(), static_cast<float>(comm.size()));
}

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

// Rank r's part of an all-gather's tensor.
at::Tensor Part(int rank, int64_t n, at::ScalarType dtype) { return Input(rank + 11, n, dtype); }

void AllGatherMakesWhole(Communicator& comm) {
  for (const at::ScalarType dtype : kDtypes) {
    for (const int64_t n : SizesFor(dtype, comm.size())) {
      // Two tensors in one message, of different sizes.
      at::Tensor x = at::zeros({n * comm.size()}, dtype);
      at::Tensor y = at::zeros({5 * comm.size()}, at::kDouble);
      x.narrow(0, comm.rank() * n, n).copy_(Part(comm.rank(), n, dtype));
      y.narrow(0, comm.rank() * 5, 5).fill_(comm.rank() + 0.5);
      comm.AllGather({x, y}).Wait();
      for (int r = 0; r < comm.size(); ++r) {
        EXPECT_TRUE(x.narrow(0, r * n, n).equal(Part(r, n, dtype)));
        EXPECT_EQ(y[r * 5 + 4].item<double>(), r + 0.5);
      }
    }
  }
}

void ReduceScatterSumsOwnPart(Communicator& comm) {
  for (const at::ScalarType dtype : kDtypes) {
    for (const int64_t n : {0, 1, 7, 4097, 20'003}) {
      SCOPED_TRACE(std::string(c10::toString(dtype)) + " of " + std::to_string(n));
      const std::vector<at::Tensor> inputs = Inputs(comm.size(), n * comm.size(), dtype);
      at::Tensor x = inputs[static_cast<size_t>(comm.rank())].clone();
      at::Tensor y = at::full({3 * comm.size()}, comm.rank() + 1, at::kLong);
      comm.ReduceScatter({x, y}).Wait();
      const at::Tensor expected = Expected(inputs, ReduceOp::kSum);
      EXPECT_TRUE(x.narrow(0, comm.rank() * n, n).equal(expected.narrow(0, comm.rank() * n, n)));
      EXPECT_EQ(y[comm.rank() * 3 + 1].item<int64_t>(), comm.size() * (comm.size() + 1) / 2);
    }
  }
}

void ALargeReduceScatterGoesInPieces(Communicator& comm) {
  const int64_t n = 300'007, ranks = comm.size();
  const at::Tensor i = at::arange(n * ranks, at::kDouble);
  at::Tensor x = i * (comm.rank() + 1);
  at::Tensor small = at::full({ranks}, 1.0, at::kFloat);
  comm.ReduceScatter({small, x, small.clone()}).Wait();
  const at::Tensor expected = i.narrow(0, comm.rank() * n, n) * (ranks * (ranks + 1) / 2);
  EXPECT_TRUE(x.narrow(0, comm.rank() * n, n).equal(expected));
  EXPECT_EQ(small[comm.rank()].item<float>(), static_cast<float>(ranks));
}

// Sizes of what `from` sends to `to`: empty, tiny and too big for one note.
int64_t PairCount(int from, int to) {
  constexpr int64_t kCounts[] = {3, 0, 2000, 70'001, 1};
  return kCounts[(from * 3 + to) % 5];
}

void AllToAllDeliversEveryPair(Communicator& comm) {
  for (const at::ScalarType dtype : kDtypes) {
    std::vector<at::Tensor> send, receive;
    for (int r = 0; r < comm.size(); ++r) {
      send.push_back(Input(comm.rank() * 31 + r, PairCount(comm.rank(), r), dtype));
      receive.push_back(at::zeros({PairCount(r, comm.rank())}, dtype));
    }
    comm.AllToAll(send, receive).Wait();
    for (int r = 0; r < comm.size(); ++r) {
      const at::Tensor expected = Input(r * 31 + comm.rank(), PairCount(r, comm.rank()), dtype);
      EXPECT_TRUE(receive[static_cast<size_t>(r)].equal(expected)) << "from rank " << r;
    }
  }
}

// A ring in both directions at once, large enough that nothing fits buffers; three rounds in
// flight arrive in the order sent.
void TransfersCrossWithoutDeadlock(Communicator& comm) {
  if (comm.size() == 1) return;
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

const std::vector<BatteryCase>& CommunicatorBattery() {
  static const std::vector<BatteryCase> cases = {
      {"AllReduceEqualsRankOrder", AllReduceEqualsRankOrder},
      {"Fp64SumOfIntegersIsExact", Fp64SumOfIntegersIsExact},
      {"Bf16IsReducedInFp32", Bf16IsReducedInFp32},
      {"Int64KeepsEveryBit", Int64KeepsEveryBit},
      {"MaxKeepsNan", MaxKeepsNan},
      {"RunsRepeatBitForBit", RunsRepeatBitForBit},
      {"ManySmallCollectivesInARow", ManySmallCollectivesInARow},
      {"AViewIsReducedAndNothingBesideIt", AViewIsReducedAndNothingBesideIt},
      {"BroadcastFromEveryRoot", BroadcastFromEveryRoot},
      {"BadTensorsAreRefused", BadTensorsAreRefused},
      {"SplitMakesOrderedGroups", SplitMakesOrderedGroups},
      {"MeshAxesSumOverTheirRanks", MeshAxesSumOverTheirRanks},
      {"AllGatherMakesWhole", AllGatherMakesWhole},
      {"ReduceScatterSumsOwnPart", ReduceScatterSumsOwnPart},
      {"ALargeReduceScatterGoesInPieces", ALargeReduceScatterGoesInPieces},
      {"AllToAllDeliversEveryPair", AllToAllDeliversEveryPair},
      {"TransfersCrossWithoutDeadlock", TransfersCrossWithoutDeadlock},
      {"GroupsDoNotWaitForEachOther", GroupsDoNotWaitForEachOther},
      {"DroppedHandlesGoOn", DroppedHandlesGoOn},
      {"ItGoesOnWithoutAWait", ItGoesOnWithoutAWait},
      {"TrafficFollowsTheFormulas", TrafficFollowsTheFormulas},
      {"TheRecorderKnowsLastAndPending", TheRecorderKnowsLastAndPending},
      {"StatusIsAgreedOn", StatusIsAgreedOn},
      {"LowestFailingRankIsHeard", LowestFailingRankIsHeard},
      {"LongAndEmptyMessagesTravel", LongAndEmptyMessagesTravel},
  };
  return cases;
}

}  // namespace osler::testing
