// A group of ranks and its collectives. Size 1 is legal and every collective is then the identity.
//
// Back-ends: in-process threads (parallel/local), MPI (parallel/mpi). All ranks of a group must call the same
// collectives in the same order with equal shapes and dtypes. Failures throw c10::DistError, which CatchTorch turns into
// a device-class status. One thread at a time may use a communicator.
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

  // In place, over contiguous CPU tensors of fp32, fp64, int64, or bf16 (reduced in fp32). The same bits on every rank.
  virtual void AllReduce(at::Tensor& x, ReduceOp op) = 0;
  virtual void Broadcast(at::Tensor& x, int root) = 0;
  virtual void Barrier() = 0;
  // Ranks of one `color` form a new group, ordered by (key, old rank). Collective.
  virtual std::unique_ptr<Communicator> Split(int color, int key) = 0;
  // What it runs on: "local", "mpi" or "single".
  virtual std::string backend() const = 0;
};

// A group of one.
std::unique_ptr<Communicator> MakeSingleCommunicator();

// Every rank returns OK if all passed OK; else every rank returns the error of the lowest failing rank, its exit class
// kept and "rank R: " before its message. Call it before a collective that a local failure would make others wait for.
absl::Status AgreeOnStatus(Communicator& comm, const absl::Status& local);

}  // namespace osler
