// Ranks that are MPI processes. CPU tensors only.
//
// Call everything from the thread that connected (MPI_THREAD_FUNNELED). Errors that MPI reports
// become c10::DistError; a peer that dies is mpirun's to handle: it ends the job. A collective
// blocks; there is no time-out.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace osler {

// Initialises MPI and returns all its processes as one group. MPI is finalised (which waits for the
// other ranks) when the last communicator goes, and never again initialised: a second call in a
// process is a device error.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectMpi();

// "Open MPI v4.1.4", say: one line; needs no initialisation.
std::string MpiLibraryVersion();

}  // namespace osler
