// How this process was started, and the world communicator that follows from it.
//
// Environment, first match wins: Open MPI (OMPI_COMM_WORLD_RANK), Slurm under srun with PMIx, other
// PMIx/PMI; otherwise one process alone. Contradictions between the environment and MPI are device
// errors that print both.
#pragma once

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace osler {

struct LaunchInfo {
  int rank = 0, world_size = 1, local_rank = 0,
      local_size = 1;    // local: on this host, as far as the launcher tells
  std::string launcher;  // "alone", "Open MPI", "PMIx", "PMI", "Slurm"
};

// Device error for an environment of several ranks that MPI knows nothing of (torchrun's RANK and
// WORLD_SIZE, srun without PMIx): going on would train the same model several times over.
absl::StatusOr<LaunchInfo> DetectLaunch();

// The same over any environment: `env` returns a variable's value, or null.
absl::StatusOr<LaunchInfo> DetectLaunchFrom(absl::FunctionRef<const char*(const char*)> env);

// Initialises MPI when launched under it (once per process) and returns the world; MPI is finalised
// when the last communicator goes. Alone: a group of one, MPI is never touched.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectWorld(const LaunchInfo& launch);

}  // namespace osler
