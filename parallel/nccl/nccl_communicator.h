// Ranks that are processes with a GPU each, over NCCL. CUDA tensors only.
//
// NCCL sums in an order of its own: the same bits on every rank and in every run of one layout
// (with a fixed NCCL_ALGO and NCCL_PROTO), but not the rank order of the CPU back-ends, and its
// maximum need not keep a NaN. bf16 sums go through fp32 as everywhere.
//
// Collectives run on a stream of the group's own, after what the caller's default stream holds when
// they are started, and while it goes on. Wait holds the calling thread until they are done. Sends
// and receives are launched together when one of them is waited for: NCCL would let two ranks that
// both send first wait for each other.
//
// A group's communicator is a non-blocking one: a time-out, an error that NCCL reports and Abort
// end it by ncclCommAbort, and every wait throws.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"
#include "parallel/engine.h"

namespace osler {

// The ranks of `cpu` as one group on their GPUs, `device` this rank's. Collective over `cpu`, which
// carries NCCL's unique ids, now and at splits, and must outlive nothing: the group keeps one of
// its own. Device errors: no GPU (says what CUDA says), NCCL or CUDA's run-time library not found,
// a build without NCCL; all ranks return the error of the first one that has any.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectNccl(Communicator& cpu, int device,
                                                          const CommunicatorOptions& options = {});

// "NCCL 2.28.9", or why there is none.
std::string NcclVersion();

}  // namespace osler
