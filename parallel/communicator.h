// A group of ranks and its collectives. Size 1 is legal and every collective is then the identity.
//
// Back-ends: in-process threads (parallel/local), MPI (parallel/mpi). All ranks of a group must
// call the same collectives in the same order with equal shapes and dtypes. Failures throw
// c10::DistError, which CatchTorch turns into a device-class status. One thread at a time may use a
// communicator.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace osler {

enum class ReduceOp { kSum, kMax };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place, over contiguous CPU tensors of fp32, fp64, int64, or bf16 (reduced in fp32). The same
  // bits on every rank. Values are combined in rank order, so the bits depend on the ranks' inputs
  // and their number alone, never on the back-end. An int64 sum wraps; a NaN wins a maximum.
  virtual void AllReduce(at::Tensor& x, ReduceOp op) = 0;
  virtual void Broadcast(at::Tensor& x, int root) = 0;
  virtual void Barrier() = 0;
  // Ranks of one `color` form a new group, ordered by (key, old rank). Collective.
  virtual std::unique_ptr<Communicator> Split(int color, int key) = 0;
  // What it runs on: "local", "mpi" or "single".
  virtual std::string backend() const = 0;

  // After a failure that the ranks have not agreed on: this rank calls no further collective.
  // Local: ranks that wait for it in this group get a DistError that names it. MPI: this process
  // will not finalise MPI, so that mpirun sees it leave with its exit code and ends the ranks that
  // wait for it. A collective that throws does this by itself.
  virtual void Abandon() {}
};

// A group of one.
std::unique_ptr<Communicator> MakeSingleCommunicator();

// Every rank returns OK if all passed OK; else every rank returns the error of the lowest failing
// rank, its exit class kept and "rank R: " before its message. Call it before a collective that a
// local failure would make others wait for. A group of one returns `local` as it is. Costs one
// small all-reduce when all is well.
absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& local);

}  // namespace osler
