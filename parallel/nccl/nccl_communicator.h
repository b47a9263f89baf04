// Ranks that are processes with a GPU each, over NCCL. CUDA tensors only.
//
// NCCL sums in an order of its own: the same bits on every rank and in every run of one layout
// (with a fixed NCCL_ALGO and NCCL_PROTO), but not the rank order of the CPU back-ends, and its
// maximum need not keep a NaN. bf16 sums go through fp32 as everywhere.
//
// Collectives run on a stream of the group's own, after what the caller's default stream holds when
// they are started, and while it goes on. Wait makes the default stream wait for them, and not the
// caller, who may go on giving the device work. Each way between two neighbours has a communicator
// and a stream for itself: NCCL works on what is in a stream one after the other, and a receive
// that waits would hold up the send that its sender waits for.
//
// A thread watches what is under way (nccl_world.h). A time-out, an error that NCCL or CUDA
// reports and Abort end all groups of the rank, those of the CPU too; whoever the device held goes
// on then, every wait throws, and so does ThrowIfFailed.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace osler {

struct NcclLibrary;

struct NcclOptions {
  // How long a collective may take from when the device can begin with it.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
  // After a failure: for this rank's threads to hear of it. Then, if none has come, because the
  // device holds it in spite of all, `stuck` is called with the failure, from another thread.
  std::chrono::milliseconds grace = std::chrono::seconds(10);
  std::function<void(const absl::Status&)> stuck = nullptr;
  // Null: the machine's.
  std::shared_ptr<const NcclLibrary> library = nullptr;
};

// The ranks of `cpu` as one group on their GPUs, `device` this rank's. Collective over `cpu`, which
// carries NCCL's unique ids, now and at splits; the group keeps one of its own, split from it.
// Device errors: no GPU (says what CUDA says), NCCL or CUDA's run-time library not found,
// a build without NCCL; all ranks return the error of the first one that has any.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectNccl(Communicator& cpu, int device,
                                                          const NcclOptions& options = {});

// "NCCL 2.28.9", or why there is none.
std::string NcclVersion();

}  // namespace osler
