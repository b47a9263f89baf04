#include "tests/parallel/communicator_battery.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

namespace osler::testing {
namespace {

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
  if (comm.size() > 3) {
    EXPECT_THROW(comm.Send(fine, (comm.rank() + 2) % comm.size()).Wait(), c10::Error);
  }
  comm.AllReduce(fine, ReduceOp::kSum).Wait();  // the group still works
  EXPECT_EQ(fine[0].item<float>(), static_cast<float>(comm.size()));
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

}  // namespace

std::vector<BatteryCase> ValueBattery() {
  return {
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
      {"AllGatherMakesWhole", AllGatherMakesWhole},
      {"ReduceScatterSumsOwnPart", ReduceScatterSumsOwnPart},
      {"ALargeReduceScatterGoesInPieces", ALargeReduceScatterGoesInPieces},
      {"AllToAllDeliversEveryPair", AllToAllDeliversEveryPair},
  };
}

}  // namespace osler::testing
