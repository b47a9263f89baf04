// How this process was started: its rank, the number of ranks, and how they find each other.
//
// What counts, first match first: flags, torchrun's variables, Open MPI's, PMIx's and PMI's,
// Slurm's; docs/faults.md has the table. Two that speak of the same ranks must agree: a
// contradiction is a device error that prints both.
#pragma once

#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "parallel/tcp/socket.h"

namespace osler {

// What the command line says; what is absent comes from the environment.
struct LaunchFlags {
  std::optional<int> rank, world_size;  // both or none
  std::string master;                   // HOST:PORT of rank 0; replaces MASTER_ADDR, MASTER_PORT
};

// What moves bytes between the ranks' CPUs.
enum class Network { kNone, kMpi, kTcp };

struct LaunchInfo {
  int rank = 0, world_size = 1, local_rank = 0,
      local_size = 1;    // local: on this host, as far as the launcher tells
  std::string launcher;  // "alone", "flags", "torchrun", "Open MPI", "PMIx", "PMI", "Slurm"
  Network network = Network::kNone;
  tcp::Endpoint master = {};  // TCP: where rank 0 listens
  // Not empty: torchrun's agent listens at `master`, and its store has rank 0's address under
  // this key.
  std::string agent_key = {};
};

absl::StatusOr<LaunchInfo> DetectLaunch(const LaunchFlags& flags = {});

// The same over any environment: `env` returns a variable's value, or null.
absl::StatusOr<LaunchInfo> DetectLaunchFrom(absl::FunctionRef<const char*(const char*)> env,
                                            const LaunchFlags& flags = {});

}  // namespace osler
