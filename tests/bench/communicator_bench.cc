// Osler's all-reduce over MPI beside MPI_Allreduce itself, and how much of it goes on while the
// ranks compute.
//
//   mpirun -n 2 communicator_bench      (add --oversubscribe --bind-to none as needed)
#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/errors.h"
#include "parallel/mpi/mpi_communicator.h"

namespace osler {
namespace {

double SecondsOf(absl::FunctionRef<void()> body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double Median(std::vector<double> seconds) {
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

void MpiAllReduce(at::Tensor& x) {
  MPI_Allreduce(MPI_IN_PLACE, x.mutable_data_ptr(), static_cast<int>(x.numel()), MPI_FLOAT, MPI_SUM,
                MPI_COMM_WORLD);
}

// Both in turns, each run after a barrier.
void Compare(Communicator& comm, int64_t bytes) {
  at::Tensor x = at::zeros({bytes / 4}, at::kFloat);
  const int runs = static_cast<int>(std::clamp<int64_t>((int64_t{256} << 20) / bytes, 11, 1001));
  std::vector<double> mpi, osler;
  for (int run = 0; run < runs; ++run) {
    comm.Barrier().Wait();
    mpi.push_back(SecondsOf([&] { MpiAllReduce(x); }));
    comm.Barrier().Wait();
    osler.push_back(SecondsOf([&] { comm.AllReduce(x, ReduceOp::kSum).Wait(); }));
  }
  if (comm.rank() != 0) return;
  const double theirs = Median(mpi), ours = Median(osler);
  std::printf("%10lld KiB %12.1f %12.1f %8.2f %10.2f\n", static_cast<long long>(bytes >> 10),
              theirs * 1e6, ours * 1e6, ours / theirs, static_cast<double>(bytes) / ours / 1e9);
}

// An all-reduce and a matrix product alone, then both at once.
void Overlap(Communicator& comm) {
  at::Tensor x = at::zeros({int64_t{8} << 20}, at::kFloat);
  const at::Tensor a = at::ones({1024, 1024}, at::kFloat);
  const auto compute = [&] {
    for (int i = 0; i < 4; ++i) (void)at::mm(a, a);
  };
  std::vector<double> alone, computing, both;
  for (int run = 0; run < 11; ++run) {
    comm.Barrier().Wait();
    alone.push_back(SecondsOf([&] { comm.AllReduce(x, ReduceOp::kSum).Wait(); }));
    comm.Barrier().Wait();
    computing.push_back(SecondsOf(compute));
    comm.Barrier().Wait();
    both.push_back(SecondsOf([&] {
      Handle handle = comm.AllReduce(x, ReduceOp::kSum);
      compute();
      handle.Wait();
    }));
  }
  if (comm.rank() != 0) return;
  const double t = Median(alone), c = Median(computing), b = Median(both);
  std::printf(
      "overlap: all-reduce of 32 MiB %.1f ms, products %.1f ms, both at once %.1f ms: %.0f %% of "
      "the shorter is hidden\n",
      t * 1e3, c * 1e3, b * 1e3, (t + c - b) / std::min(t, c) * 100);
}

int Main() {
  at::set_num_threads(1);
  auto world = ConnectMpi();
  if (!world.ok()) {
    std::fprintf(stderr, "%s\n", world.status().ToString().c_str());
    return static_cast<int>(ExitCodeOf(world.status()));
  }
  Communicator& comm = **world;
  if (comm.rank() == 0) {
    std::printf("fp32 sum over %d ranks, medians\n%14s %12s %12s %8s %10s\n", comm.size(), "size",
                "MPI us", "Osler us", "ratio", "GB/s");
  }
  for (int64_t bytes = int64_t{4} << 10; bytes <= int64_t{64} << 20; bytes *= 4)
    Compare(comm, bytes);
  Overlap(comm);
  return 0;
}

}  // namespace
}  // namespace osler

int main() { return osler::Main(); }
