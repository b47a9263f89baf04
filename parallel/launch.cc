#include "parallel/launch.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "parallel/slurm.h"

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
                                    ": start osler with mpirun -n N or torchrun, or unset it"));
  }
  return value;
}

absl::StatusOr<int> NumberOr(Env env, const char* name, int low, int otherwise) {
  if (!Has(env, name)) return otherwise;
  return Number(env, name, low);
}

// Where a launcher writes what.
struct Names {
  const char* launcher;
  Network network;
  const char *rank, *size, *local_rank, *local_size;
};

constexpr char kNone[] = "OSLER_NO_SUCH_VARIABLE";
constexpr Names kTorchrun = {"torchrun",   Network::kTcp, "RANK",
                             "WORLD_SIZE", "LOCAL_RANK",  "LOCAL_WORLD_SIZE"};
constexpr Names kOpenMpi = {"Open MPI",
                            Network::kMpi,
                            "OMPI_COMM_WORLD_RANK",
                            "OMPI_COMM_WORLD_SIZE",
                            "OMPI_COMM_WORLD_LOCAL_RANK",
                            "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kSlurmPmix = {"Slurm",         Network::kMpi, "PMIX_RANK", "SLURM_STEP_NUM_TASKS",
                              "SLURM_LOCALID", kNone};
constexpr Names kPmix = {"PMIx",      Network::kMpi,     "PMIX_RANK",
                         "PMIX_SIZE", "PMIX_LOCAL_RANK", "PMIX_LOCAL_SIZE"};
constexpr Names kPmi = {"PMI",      Network::kMpi,     "PMI_RANK",
                        "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
constexpr Names kSlurm = {"Slurm",         Network::kTcp, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS",
                          "SLURM_LOCALID", kNone};

absl::StatusOr<LaunchInfo> Read(Env env, const Names& names) {
  if (!Has(env, names.size)) {
    return DeviceError(
        absl::StrCat(names.rank, " is set but ", names.size,
                     " is not, so the number of ranks is unknown: start osler with mpirun -n N"));
  }
  LaunchInfo info;
  info.launcher = names.launcher;
  info.network = names.network;
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

absl::StatusOr<LaunchInfo> ReadSlurm(Env env, const Names& names) {
  OSLER_ASSIGN_OR_RETURN(LaunchInfo info, Read(env, names));
  if (Has(env, "SLURM_STEP_TASKS_PER_NODE")) {
    OSLER_ASSIGN_OR_RETURN(const int node, NumberOr(env, "SLURM_NODEID", 0, 0));
    info.local_size = SlurmTasksOnNode(env("SLURM_STEP_TASKS_PER_NODE"), node);
  }
  return info;
}

// "RANK=1 of WORLD_SIZE=2 (torchrun)".
std::string Describe(Env env, const LaunchInfo& info, const Names& names) {
  return absl::StrCat(
      names.rank, "=", info.rank,
      Has(env, names.size) ? absl::StrCat(" of ", names.size, "=", env(names.size)) : "", " (",
      names.launcher, ")");
}

struct Candidate {
  LaunchInfo info;
  std::string words;
};

// What MPI launchers say, the most telling first.
absl::StatusOr<std::vector<Candidate>> ReadMpi(Env env) {
  std::vector<Candidate> found;
  const auto add = [&](absl::StatusOr<LaunchInfo> info, const Names& names) -> absl::Status {
    if (!info.ok()) return info.status();
    std::string words = Describe(env, *info, names);
    found.push_back({*std::move(info), std::move(words)});
    return absl::OkStatus();
  };
  if (Has(env, kOpenMpi.rank)) {
    OSLER_RETURN_IF_ERROR(add(Read(env, kOpenMpi), kOpenMpi));
    if (Has(env, kPmix.rank)) {  // Open MPI sets it too, without a size
      LaunchInfo same = found[0].info;
      OSLER_ASSIGN_OR_RETURN(same.rank, Number(env, kPmix.rank, 0));
      OSLER_RETURN_IF_ERROR(add(same, kPmix));
    }
    return found;
  }
  if (Has(env, kPmix.rank) && Has(env, "SLURM_STEP_ID")) {
    OSLER_RETURN_IF_ERROR(add(ReadSlurm(env, kSlurmPmix), kSlurmPmix));
    if (Has(env, kSlurm.rank)) OSLER_RETURN_IF_ERROR(add(ReadSlurm(env, kSlurm), kSlurm));
  } else if (Has(env, kPmix.rank)) {
    OSLER_RETURN_IF_ERROR(add(Read(env, kPmix), kPmix));
  } else if (Has(env, kPmi.rank)) {
    OSLER_RETURN_IF_ERROR(add(Read(env, kPmi), kPmi));
  }
  return found;
}

absl::Status ReadMaster(Env env, const LaunchFlags& flags, LaunchInfo& info) {
  if (!flags.master.empty()) {
    OSLER_ASSIGN_OR_RETURN(info.master, tcp::ParseEndpoint(flags.master));
  } else if (info.launcher == "Slurm") {
    info.master.host = Has(env, "MASTER_ADDR") ? env("MASTER_ADDR")
                       : Has(env, "SLURM_STEP_NODELIST")
                           ? FirstSlurmHost(env("SLURM_STEP_NODELIST"))
                           : "";
    OSLER_ASSIGN_OR_RETURN(info.master.port,
                           NumberOr(env, "MASTER_PORT", 1,
                                    SlurmPort(Has(env, "SLURM_JOB_ID") ? env("SLURM_JOB_ID") : "",
                                              env("SLURM_STEP_ID"))));
  } else {
    info.master.host = Has(env, "MASTER_ADDR") ? env("MASTER_ADDR") : "";
    OSLER_ASSIGN_OR_RETURN(info.master.port, NumberOr(env, "MASTER_PORT", 1, 0));
  }
  if (info.master.host.empty() || info.master.port < 1 || info.master.port > 65535) {
    return DeviceError(absl::StrCat(
        "rank ", info.rank, " of ", info.world_size, " (", info.launcher,
        ") does not know where rank 0 is: set MASTER_ADDR and MASTER_PORT (1 to 65535), or give "
        "--master HOST:PORT",
        info.launcher == "Slurm" ? "; or use srun --mpi=pmix" : ""));
  }
  const bool all_here = tcp::IsLoopback(info.master.host);
  if (all_here && info.local_size == 1) {
    info.local_rank = info.rank;
    info.local_size = info.world_size;
  }
  const char* agent = env("TORCHELASTIC_USE_AGENT_STORE");
  if (info.launcher == "torchrun" && flags.master.empty() && agent != nullptr &&
      std::string(agent) == "True") {
    const auto part = [&](const char* name) { return Has(env, name) ? env(name) : "-"; };
    info.agent_key = absl::StrCat("osler/", part("TORCHELASTIC_RUN_ID"), "/",
                                  part("TORCHELASTIC_RESTART_COUNT"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Candidate>> ReadFlags(const LaunchFlags& flags) {
  if (flags.rank.has_value() != flags.world_size.has_value()) {
    return ConfigError("--rank and --world-size go together: give both or none");
  }
  if (!flags.rank.has_value()) return std::vector<Candidate>{};
  LaunchInfo info{*flags.rank, *flags.world_size, 0, 1, "flags", Network::kTcp};
  if (info.world_size < 1 || info.rank < 0 || info.rank >= info.world_size) {
    return ConfigError(absl::StrCat("--rank ", info.rank, " does not fit --world-size ",
                                    info.world_size, ": ranks count from 0"));
  }
  if (info.world_size > 1 && flags.master.empty()) {
    return ConfigError("--rank and --world-size need --master HOST:PORT, where rank 0 listens");
  }
  std::string words = absl::StrCat("--rank ", info.rank, " of --world-size ", info.world_size);
  return std::vector<Candidate>{{std::move(info), std::move(words)}};
}

// All that speak of this process as a rank, the one that counts first.
absl::StatusOr<std::vector<Candidate>> ReadAll(Env env, const LaunchFlags& flags) {
  OSLER_ASSIGN_OR_RETURN(std::vector<Candidate> all, ReadFlags(flags));
  const bool torchrun = Has(env, kTorchrun.rank) && Has(env, kTorchrun.size);
  if (torchrun) {
    OSLER_ASSIGN_OR_RETURN(LaunchInfo info, Read(env, kTorchrun));
    all.push_back({info, Describe(env, info, kTorchrun)});
  }
  // An agent of torchrun may itself be a rank of mpirun or srun: those variables are the agent's.
  if (!torchrun || !Has(env, "TORCHELASTIC_RUN_ID")) {
    OSLER_ASSIGN_OR_RETURN(const std::vector<Candidate> mpi, ReadMpi(env));
    all.insert(all.end(), mpi.begin(), mpi.end());
  }
  // SLURM_PROCID alone means nothing: a batch script has it without any srun, and under salloc +
  // mpirun it is the daemon's.
  if (all.empty() && Has(env, "SLURM_STEP_ID") && Has(env, kSlurm.size) && Has(env, kSlurm.rank)) {
    OSLER_ASSIGN_OR_RETURN(LaunchInfo info, ReadSlurm(env, kSlurm));
    all.push_back({info, Describe(env, info, kSlurm)});
  }
  return all;
}

}  // namespace

absl::StatusOr<LaunchInfo> DetectLaunchFrom(Env env, const LaunchFlags& flags) {
  OSLER_ASSIGN_OR_RETURN(std::vector<Candidate> all, ReadAll(env, flags));
  LaunchInfo alone;
  alone.launcher = "alone";
  if (all.empty()) return alone;
  const LaunchInfo& first = all[0].info;
  for (const Candidate& other : all) {
    if (other.info.rank == first.rank && other.info.world_size == first.world_size) continue;
    return DeviceError(absl::StrCat(
        "this process was given two places in a run: ", all[0].words, " and ", other.words,
        ". One is left over from another launcher: unset it, or start osler with one launcher"));
  }
  if (first.network == Network::kMpi) return first;
  if (first.world_size == 1) return alone;
  LaunchInfo info = first;
  OSLER_RETURN_IF_ERROR(ReadMaster(env, flags, info));
  return info;
}

absl::StatusOr<LaunchInfo> DetectLaunch(const LaunchFlags& flags) {
  return DetectLaunchFrom([](const char* name) -> const char* { return std::getenv(name); }, flags);
}

}  // namespace osler
