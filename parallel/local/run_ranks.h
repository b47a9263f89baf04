// Runs a function on every rank of an in-process group, one thread a rank.
#pragma once

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "parallel/communicator.h"
#include "parallel/engine.h"

namespace osler {

// What `body` returned on each rank, by rank; an exception it threw is a status (CatchTorch). A
// rank that returns leaves the group, so that the others never wait for it. Joins all threads.
std::vector<absl::Status> RunRanks(int n, absl::FunctionRef<absl::Status(Communicator&)> body,
                                   const CommunicatorOptions& options = {});

}  // namespace osler
