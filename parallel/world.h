// All ranks of a run, connected.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"
#include "parallel/control_plane.h"
#include "parallel/engine.h"
#include "parallel/launch.h"

namespace osler {

struct World {
  std::unique_ptr<ControlPlane> control;  // outlives the communicator
  std::unique_ptr<Communicator> comm;
};

// Connects this rank with the others as the launcher says: MPI is initialised when launched under
// it (finalised when the last communicator goes), otherwise TCP, and the control plane in both
// cases; once per process. Alone: a group of one; nothing is opened. Blocks until all ranks have
// come. Device errors name the rank or address that is missing, and contradictions between
// environment and MPI.
//
// The secret that ranks of one run share is OSLER_RUN_SECRET; without it, one that rank 0 draws and
// hands to the others over MPI or torchrun's store; without those none (docs/faults.md).
absl::StatusOr<World> ConnectWorld(const LaunchInfo& launch, const ControlTimes& times = {},
                                   const CommunicatorOptions& options = {});

}  // namespace osler
