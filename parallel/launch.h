// How this process was started, and the world communicator that follows from it.
//
// Environment, first match wins: Open MPI (OMPI_COMM_WORLD_RANK), PMIx/PMI, Slurm under srun with PMIx; otherwise one
// process alone. Contradictions between the environment and MPI are device errors that print both.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace osler {

struct LaunchInfo {
  int rank = 0, world_size = 1, local_rank = 0, local_size = 1;
  std::string launcher;  // "alone", "Open MPI", "PMIx", "Slurm"
};

absl::StatusOr<LaunchInfo> DetectLaunch();

// Initialises MPI when launched under it (once per process) and returns the world; MPI is finalised when the last
// communicator goes. Alone: a group of one, MPI is never touched.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectWorld(const LaunchInfo& launch);

}  // namespace osler
