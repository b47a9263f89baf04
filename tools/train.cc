#include <ATen/Parallel.h>
#include <malloc.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "configs/config.h"
#include "parallel/launch.h"
#include "parallel/mesh.h"
#include "tools/commands.h"
#include "trainer/run_layout.h"
#include "trainer/stop_signal.h"
#include "trainer/trainer.h"

namespace osler {
namespace {

struct TrainFlags {
  std::string config;
  std::vector<std::string> overrides;
};

// glibc returns large blocks to the system on every free; activations of one step are the next
// step's, so keep them.
void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

// One share of this host's cores a rank, unless OMP_NUM_THREADS says otherwise.
void ChooseThreads(const LaunchInfo& launch) {
  if (std::getenv("OMP_NUM_THREADS") != nullptr) return;
  cpu_set_t cores;
  CPU_ZERO(&cores);
  const int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  at::set_num_threads(std::max(1, count / std::max(1, launch.local_size)));
}

// Stored paths must mean the same from any working directory: export and resume read them later.
void MakePathsAbsolute(config::Train& config) {
  const auto absolute = [](const std::string& path) {
    return std::filesystem::absolute(path).lexically_normal().string();
  };
  config.mutable_model()->set_path(absolute(config.model().path()));
  config.mutable_train()->set_output(absolute(config.train().output()));
  for (auto& source : *config.mutable_data()->mutable_train())
    source.set_path(absolute(source.path()));
  for (auto& source : *config.mutable_data()->mutable_validation()) {
    source.set_path(absolute(source.path()));
  }
}

absl::Status TrainOnMesh(Fs& fs, const config::Train& config, Communicator& world) {
  OSLER_ASSIGN_OR_RETURN(const MeshShape shape, MeshShapeOf(config.mesh(), world.size()));
  OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(shape, world));
  OSLER_ASSIGN_OR_RETURN(const auto trainer, Trainer::Create(fs, config, mesh));
  return trainer->Run();
}

// log/exit.rankN.json: the rank's last words.
void WriteExitRecord(Fs& fs, const config::Train& config, const LaunchInfo& launch,
                     const absl::Status& status) {
  const std::string directory = JoinPath(config.train().output(), "log");
  const nlohmann::ordered_json record = {{"rank", launch.rank},
                                         {"world_size", launch.world_size},
                                         {"exit_code", static_cast<int>(ExitCodeOf(status))},
                                         {"message", std::string(status.message())}};
  absl::Status written = fs.MakeDirectories(directory);
  if (written.ok()) {
    written =
        WriteFileDurably(fs, JoinPath(directory, absl::StrCat("exit.rank", launch.rank, ".json")),
                         record.dump(2) + "\n");
  }
  if (!written.ok()) LogWarning("{}", std::string(written.message()));
}

// A device or internal failure may be this rank's alone, with others waiting in a collective: leave
// without finalising MPI, which makes the launcher end them.
void LeaveIfAlone(const LaunchInfo& launch, const absl::Status& status) {
  const ExitCode code = ExitCodeOf(status);
  if (launch.world_size == 1 || (code != ExitCode::kDevice && code != ExitCode::kBug)) return;
  LogError("{}", std::string(status.message()));
  std::fflush(nullptr);
  std::_Exit(static_cast<int>(code));
}

absl::Status Train(Fs& fs, const TrainFlags& flags) {
  InstallStopSignals();
  KeepFreedMemory();
  OSLER_ASSIGN_OR_RETURN(const LaunchInfo launch, DetectLaunch());
  SetLogRank(launch.rank, launch.world_size);
  OSLER_ASSIGN_OR_RETURN(config::Train config, LoadTrainConfig(fs, flags.config, flags.overrides));
  MakePathsAbsolute(config);
  ChooseThreads(launch);
  OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<Communicator> world, ConnectWorld(launch));
  const absl::Status status = TrainOnMesh(fs, config, *world);
  // A directory that belongs to another run keeps that run's last words.
  const bool ours = ExitCodeOf(status) != ExitCode::kConfig &&
                    status.message().find("another run") == absl::string_view::npos;
  if (ours) WriteExitRecord(fs, config, launch, status);
  LeaveIfAlone(launch, status);
  return status;
}

}  // namespace

void AddTrainCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand("train", "Train or resume a run");
  command->footer(
      "Starts the run, or resumes it from its newest good checkpoint.\n"
      "Example: mpirun -n 2 --bind-to none osler train --config train.yaml --set "
      "optimizer.lr=2e-4");
  command->add_option("--config", flags->config, "YAML file (docs/config.md)")->required();
  command->add_option("--set", flags->overrides, "override a setting: a.b=value (repeatable)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Train(fs, *flags); }; });
}

}  // namespace osler
