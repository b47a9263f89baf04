#include "parallel/launch.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "parallel/mpi/mpi_communicator.h"

namespace osler {
namespace {

using Env = absl::FunctionRef<const char*(const char*)>;

bool Has(Env env, const char* name) {
  const char* text = env(name);
  return text != nullptr && *text != '\0';
}

absl::StatusOr<int> Number(Env env, const char* name, int low) {
  int value = 0;
  if (!absl::SimpleAtoi(env(name), &value) || value < low) {
    return DeviceError(absl::StrCat("environment variable ", name, "=", env(name),
                                    " is not a number of at least ", low,
                                    ": start osler with mpirun -n N, or unset it"));
  }
  return value;
}

absl::StatusOr<int> NumberOr(Env env, const char* name, int low, int otherwise) {
  if (!Has(env, name)) return otherwise;
  return Number(env, name, low);
}

struct Names {
  const char* launcher;
  const char *rank, *size, *local_rank, *local_size;
};

absl::StatusOr<LaunchInfo> Read(Env env, const Names& names) {
  if (!Has(env, names.size)) {
    return DeviceError(
        absl::StrCat(names.rank, " is set but ", names.size,
                     " is not, so the number of ranks is unknown: start osler with mpirun -n N"));
  }
  LaunchInfo info;
  info.launcher = names.launcher;
  OSLER_ASSIGN_OR_RETURN(info.rank, Number(env, names.rank, 0));
  OSLER_ASSIGN_OR_RETURN(info.world_size, Number(env, names.size, 1));
  OSLER_ASSIGN_OR_RETURN(info.local_rank, NumberOr(env, names.local_rank, 0, 0));
  OSLER_ASSIGN_OR_RETURN(info.local_size, NumberOr(env, names.local_size, 1, 1));
  if (info.rank >= info.world_size) {
    return DeviceError(
        absl::StrCat(names.rank, "=", info.rank, " does not fit ", names.size, "=", info.world_size,
                     ": the environment mixes two launchers; start osler with mpirun -n N"));
  }
  return info;
}

// Slurm's "2(x3),1" (tasks on each node, runs folded) → the tasks on node `node`; 1 when it says
// nothing about it.
int TasksOnNode(const std::string& text, int node) {
  for (const absl::string_view run : absl::StrSplit(text, ',')) {
    const std::vector<std::string> parts = absl::StrSplit(run, absl::ByAnyChar("(x)"));
    int tasks = 1, nodes = 1;
    if (!absl::SimpleAtoi(parts[0], &tasks)) return 1;
    if (parts.size() > 2 && !absl::SimpleAtoi(parts[2], &nodes)) return 1;
    if (node < nodes) return tasks;
    node -= nodes;
  }
  return 1;
}

absl::StatusOr<LaunchInfo> ReadSlurm(Env env) {
  OSLER_ASSIGN_OR_RETURN(LaunchInfo info, Read(env, {"Slurm", "PMIX_RANK", "SLURM_STEP_NUM_TASKS",
                                                     "SLURM_LOCALID", "SLURM_NO_SUCH_VARIABLE"}));
  if (Has(env, "SLURM_STEP_TASKS_PER_NODE")) {
    OSLER_ASSIGN_OR_RETURN(const int node, NumberOr(env, "SLURM_NODEID", 0, 0));
    info.local_size = TasksOnNode(env("SLURM_STEP_TASKS_PER_NODE"), node);
  }
  return info;
}

// Several processes were started by something that does not speak MPI.
absl::Status RefuseForeignLaunchers(Env env) {
  if (Has(env, "RANK") && Has(env, "WORLD_SIZE")) {
    OSLER_ASSIGN_OR_RETURN(const int size, Number(env, "WORLD_SIZE", 1));
    if (size > 1) {
      return DeviceError(
          absl::StrCat("RANK=", env("RANK"), " and WORLD_SIZE=", size,
                       " are set as by torchrun, but osler's ranks talk over MPI: use mpirun -n ",
                       size, " osler …, or unset RANK and WORLD_SIZE to run alone"));
    }
  }
  // SLURM_PROCID alone means nothing: a batch script has it without any srun, and under salloc +
  // mpirun it is wrong.
  if (Has(env, "SLURM_STEP_ID") && Has(env, "SLURM_STEP_NUM_TASKS")) {
    OSLER_ASSIGN_OR_RETURN(const int size, Number(env, "SLURM_STEP_NUM_TASKS", 1));
    if (size > 1) {
      return DeviceError(absl::StrCat("srun started ", size,
                                      " tasks without PMIx, so they cannot find each other: use "
                                      "srun --mpi=pmix -n ",
                                      size, " osler …, or mpirun inside the allocation"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LaunchInfo> DetectLaunchFrom(Env env) {
  if (Has(env, "OMPI_COMM_WORLD_RANK")) {
    return Read(env, {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                      "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"});
  }
  if (Has(env, "PMIX_RANK") && Has(env, "SLURM_STEP_ID")) return ReadSlurm(env);
  if (Has(env, "PMIX_RANK")) {
    return Read(env, {"PMIx", "PMIX_RANK", "PMIX_SIZE", "PMIX_LOCAL_RANK", "PMIX_LOCAL_SIZE"});
  }
  if (Has(env, "PMI_RANK")) {
    return Read(env, {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"});
  }
  OSLER_RETURN_IF_ERROR(RefuseForeignLaunchers(env));
  LaunchInfo alone;
  alone.launcher = "alone";
  return alone;
}

absl::StatusOr<LaunchInfo> DetectLaunch() {
  return DetectLaunchFrom([](const char* name) -> const char* { return std::getenv(name); });
}

absl::StatusOr<std::unique_ptr<Communicator>> ConnectWorld(const LaunchInfo& launch) {
  if (launch.launcher == "alone") return MakeSingleCommunicator();
  OSLER_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> world, ConnectMpi());
  if (world->rank() == launch.rank && world->size() == launch.world_size) return world;
  world->Abandon();
  return DeviceError(absl::StrCat(launch.launcher, "'s environment says rank ", launch.rank, " of ",
                                  launch.world_size, ", MPI says rank ", world->rank(), " of ",
                                  world->size(),
                                  ": the launcher belongs to another MPI than osler's (",
                                  MpiLibraryVersion(), "); use that one's mpirun"));
}

}  // namespace osler
