#include <ATen/Parallel.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "configs/config.h"
#include "kernels/cuda/device.h"
#include "parallel/launch.h"
#include "parallel/mesh.h"
#include "parallel/nccl/nccl_communicator.h"
#include "parallel/world.h"
#include "tools/commands.h"
#include "tools/launch_flags.h"
#include "tools/rank_exit.h"
#include "tools/version.h"
#include "trainer/freed_memory.h"
#include "trainer/run_layout.h"
#include "trainer/stop_signal.h"
#include "trainer/trainer.h"

namespace osler {
namespace {

struct TrainFlags {
  std::string config;
  std::vector<std::string> overrides;
  LaunchFlags launch;
  int64_t profile_step = 0;
};

// How this process was started, as far as training wants to know.
struct Start {
  LaunchInfo launch;
  int64_t profile_step = 0;
  RankExit* exit = nullptr;  // not owned; null as long as there is no configuration
};

// Under ZeRO 3 memory is what one saves.
FreedMemory FreedMemoryOf(const config::Train& config) {
  const bool cut = config.mesh().shard() > 1 && config.mesh().zero() == 3;
  return cut ? FreedMemory::kReturned : FreedMemory::kKept;
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

// From here on the configuration says which: it is stored with the run, and must be that of all
// ranks.
void ChooseDevice(config::TrainLoop& train) {
  if (train.device() != config::TrainLoop::AUTO) return;
  train.set_device(CudaDeviceCount() > 0 ? config::TrainLoop::CUDA : config::TrainLoop::CPU);
}

// Collective.
absl::StatusOr<CudaDevice> OpenDevice(const config::TrainLoop& train, const LaunchInfo& launch,
                                      Communicator& world) {
  CudaDevice device;
  if (train.device() != config::TrainLoop::CUDA) return device;
  const absl::Status opened = [&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(device, OpenCudaDevice(launch.local_rank));
    return absl::OkStatus();
  }();
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(world, Annotate(opened, "train.device cuda")));
  if (world.rank() == 0) LogInfo("training on {}", device.name);
  return device;
}

void WarnOfNoEffect(const config::TrainLoop& train, const Communicator& world) {
  if (world.size() == 1 && train.gradient_reduction() == config::BF16)
    LogWarning("train.gradient_reduction has no effect: one rank reduces nothing");
}

ControlTimes TimesOf(const config::Communication& communication) {
  ControlTimes times;
  times.heartbeat_s = communication.heartbeat_seconds();
  times.silence_s = communication.silence_seconds();
  times.connect_s = communication.connect_seconds();
  return times;
}

CommunicatorOptions OptionsOf(const config::Communication& communication) {
  CommunicatorOptions options;
  options.timeout =
      std::chrono::milliseconds(static_cast<int64_t>(communication.timeout_seconds() * 1e3));
  return options;
}

NcclOptions OptionsOf(const config::Communication& communication, RankExit& exit) {
  NcclOptions options;
  options.timeout = OptionsOf(communication).timeout;
  options.stuck = [&exit](const absl::Status& status) { (void)exit.Finish(status); };
  return options;
}

absl::Status TrainOnMesh(Fs& fs, const config::Train& config, const Start& start,
                         Communicator& world) {
  const LaunchInfo& launch = start.launch;
  OSLER_ASSIGN_OR_RETURN(const CudaDevice device, OpenDevice(config.train(), launch, world));
  WarnOfNoEffect(config.train(), world);
  OSLER_ASSIGN_OR_RETURN(const MeshShape shape, MeshShapeOf(config.mesh(), world.size()));
  std::unique_ptr<Communicator> nccl;  // between devices; the CPU's tensors go over `world`
  if (world.size() > 1 && !device.device.is_cpu()) {
    OSLER_ASSIGN_OR_RETURN(nccl, ConnectNccl(world, launch.local_rank,
                                             OptionsOf(config.communication(), *start.exit)));
  }
  OSLER_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(shape, world, nccl.get()));
  OSLER_ASSIGN_OR_RETURN(
      const auto trainer,
      Trainer::Create(fs, config, mesh, {.device = device, .profile_step = start.profile_step}));
  return trainer->Run();
}

// What all ranks do together, from the first moment at which each knows of the others.
absl::Status TrainTogether(Fs& fs, const absl::StatusOr<config::Train>& config, const Start& start,
                           World& world) {
  OSLER_RETURN_IF_ERROR(AgreeOnStatus(*world.comm, config.status()));
  OSLER_RETURN_IF_ERROR(
      CheckSameOnAllRanks(*world.control, "configuration",
                          absl::StrCat("osler_version: ", kOslerVersion, "\n", ToYaml(*config))));
  return TrainOnMesh(fs, *config, start, *world.comm);
}

absl::Status Train(Fs& fs, const TrainFlags& flags) {
  InstallStopSignals();
  OSLER_ASSIGN_OR_RETURN(const LaunchInfo launch, DetectLaunch(flags.launch));
  SetLogRank(launch.rank, launch.world_size);
  absl::StatusOr<config::Train> config = LoadTrainConfig(fs, flags.config, flags.overrides);
  // Others would wait for a rank whose configuration cannot be read: it tells them first.
  if (!config.ok() && launch.world_size == 1) return config.status();
  if (config.ok()) {
    MakePathsAbsolute(*config);
    ChooseDevice(*config->mutable_train());
    SetFreedMemory(FreedMemoryOf(*config));
  }
  ChooseThreads(launch);
  const config::Communication communication =
      config.ok() ? config->communication() : config::Communication();
  OSLER_ASSIGN_OR_RETURN(World world,
                         ConnectWorld(launch, TimesOf(communication), OptionsOf(communication)));
  Start start{launch, flags.profile_step};
  if (!config.ok()) return TrainTogether(fs, config, start, world);
  RankExit exit(fs, world, config->train().output());
  start.exit = &exit;
  return exit.Finish(TrainTogether(fs, config, start, world));
}

}  // namespace

void AddTrainCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand("train", "Train or resume a run");
  command->footer(
      "Starts the run, or resumes it from its newest good checkpoint.\n"
      "Example: mpirun -n 2 --bind-to none osler train --config train.yaml --set "
      "optimizer.lr=2e-4\n"
      "Example: torchrun --no-python --nproc-per-node 2 osler train --config train.yaml");
  command->add_option("--config", flags->config, "YAML file (docs/config.md)")->required();
  command->add_option("--set", flags->overrides, "override a setting: a.b=value (repeatable)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--profile", flags->profile_step,
                      "write RUN_DIR/log/trace.stepN.json, a Chrome trace of this step");
  AddLaunchFlags(*command, flags->launch);
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Train(fs, *flags); }; });
}

}  // namespace osler
