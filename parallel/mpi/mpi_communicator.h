// Ranks that are MPI processes. CPU tensors only.
//
// MPI moves bytes and nothing else; calls come from whichever thread moves operations on, one at a
// time (MPI_THREAD_SERIALIZED). A peer that dies is mpirun's to handle, which ends the job, and the
// control plane's.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"
#include "parallel/engine.h"

namespace osler {

// Initialises MPI and returns all its processes as one group. MPI is finalised (which waits for the
// other ranks) when the last communicator goes, and never again initialised: a second call in a
// process is a device error.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectMpi(const CommunicatorOptions& options = {});

// "Open MPI v4.1.4", say: one line; needs no initialisation.
std::string MpiLibraryVersion();

}  // namespace osler
