// osler plan: memory, work and time of a run before it is launched. Reads no weight and no record.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "configs/config.h"
#include "tools/commands.h"
#include "trainer/plan/report.h"
#include "trainer/run_layout.h"

namespace osler {
namespace {

constexpr int kMostRanks = 65536;

struct PlanFlags {
  std::string config, memory;
  std::vector<std::string> overrides;
  int gpus = 0;  // 0: as many as the configuration's mesh has
  PlanHardware hardware;
  double node_gbps = 300, link_gbps = 25, disk_gbps = 1, peak_tflops = 989;
  CheckpointAssumptions checkpoint;
};

// "80GiB"; empty: no limit.
absl::StatusOr<std::optional<int64_t>> ParseMemory(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string unit = text.substr(digits);
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1024.0 * (1 << 30)},
      {"MB", 1e6},      {"GB", 1e9},      {"TB", 1e12}};
  double value = 0;
  for (const auto& [name, size] : kUnits) {
    if (unit != name || !absl::SimpleAtod(text.substr(0, digits), &value) || value <= 0) continue;
    const double bytes = value * size;
    if (bytes < 9e18) return static_cast<int64_t>(bytes);
  }
  return ConfigError(absl::StrCat("--memory ", text,
                                  ": write a number and MiB, GiB, TiB, MB, GB or TB, as in 80GiB"));
}

// The configuration's own mesh. What it leaves open is what --gpus leaves of the ranks.
absl::StatusOr<MeshShape> ConfiguredMesh(const config::Mesh& mesh, int gpus) {
  int64_t ranks = 1;
  for (const int64_t size :
       {mesh.pipeline(), mesh.shard(), mesh.context(), mesh.tensor(), mesh.data()}) {
    ranks *= std::max<int64_t>(size, 1);
    if (ranks > kMostRanks)
      return ConfigError(absl::StrCat("the mesh has more than ", kMostRanks, " ranks"));
  }
  if (!mesh.has_data() && gpus > 0 && gpus % ranks == 0) ranks = gpus;
  return MeshShapeOf(mesh, static_cast<int>(ranks));
}

absl::Status PredictConfigured(PlanSpace& space, PlanReport& report) {
  PlanLayout layout = report.layout;
  for (const RecomputeMode recompute : kRecomputeModes) {
    layout.recompute = recompute;
    OSLER_ASSIGN_OR_RETURN(report.memory[recompute], PredictMemory(space, layout));
  }
  return absl::OkStatus();
}

absl::StatusOr<PlanReport> MakeReport(Fs& fs, const config::Train& config, const PlanModel& model,
                                      const PlanFlags& flags) {
  PlanReport report;
  report.family = model.spec.family;
  report.precision = config::Precision_Name(config.train().precision());
  report.parameters = model.store.parameter_count();
  for (size_t i = 0; i < model.store.slots().size(); ++i) {
    if (model.store.slots()[i].trainable)
      report.trained += model.store.LocalCount(static_cast<int64_t>(i));
  }
  report.steps = config.train().steps();
  report.batch = PlanBatchOf(config);
  OSLER_ASSIGN_OR_RETURN(report.memory_limit, ParseMemory(flags.memory));
  OSLER_ASSIGN_OR_RETURN(const MeshShape mesh, ConfiguredMesh(config.mesh(), flags.gpus));
  report.layout = PlanLayoutOf(config, mesh);
  PlanSpace space(model, report.batch);
  OSLER_RETURN_IF_ERROR(PredictConfigured(space, report));
  report.epoch = CountEpoch(fs, config, model);
  OSLER_ASSIGN_OR_RETURN(report.flops, FlopsOf(model.model, model.store, report.epoch.keys,
                                               report.epoch.target_share));
  OSLER_ASSIGN_OR_RETURN(report.time,
                         EstimateStep(space, report.layout, report.flops, flags.hardware));
  report.checkpoint = PlanCheckpoints(model, report.batch, report.layout.ranks(), flags.checkpoint);
  if (flags.gpus == 0 && flags.memory.empty()) return report;
  const int ranks = flags.gpus > 0 ? flags.gpus : report.layout.ranks();
  OSLER_ASSIGN_OR_RETURN(
      report.search,
      SearchLayouts(model, report.batch, report.flops, flags.hardware, ranks,
                    report.memory_limit.value_or(std::numeric_limits<int64_t>::max())));
  return report;
}

absl::Status WhetherAnyFits(const PlanReport& report) {
  if (!report.search.has_value() || !report.search->fitting.empty()) return absl::OkStatus();
  const RankedLayout& smallest = report.search->smallest;
  return ConfigError(absl::StrCat(
      "no layout of ", smallest.layout.ranks(), " ranks fits in ",
      BytesText(static_cast<double>(*report.memory_limit)), ": the smallest, ",
      NameOf(smallest.layout), ", needs ", BytesText(static_cast<double>(smallest.memory)),
      "; take more ranks (--gpus), or lower data.sequence_length or train.micro_batch, set "
      "train.mlp_chunk_tokens or train.precision bf16, or train fewer parameters "
      "(train.train_only)"));
}

absl::Status PlanRun(Fs& fs, PlanFlags flags) {
  flags.hardware.peak_flops = flags.peak_tflops * 1e12;
  flags.hardware.node_bytes = flags.node_gbps * 1e9;
  flags.hardware.link_bytes = flags.link_gbps * 1e9;
  flags.checkpoint.disk_bytes = flags.disk_gbps * 1e9;
  OSLER_ASSIGN_OR_RETURN(const config::Train config,
                         LoadTrainConfig(fs, flags.config, flags.overrides));
  OSLER_ASSIGN_OR_RETURN(ModelSpec spec, LoadModelSpec(fs, config.model().path()));
  OSLER_ASSIGN_OR_RETURN(const PlanModel model, MakePlanModel(config, std::move(spec)));
  return CatchTorch([&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(const PlanReport report, MakeReport(fs, config, model, flags));
    std::fputs(PlanText(report).c_str(), stderr);
    std::fputs(PlanJson(report).c_str(), stdout);
    std::fflush(stdout);
    return WhetherAnyFits(report);
  });
}

void AddAssumptions(CLI::App& command, PlanFlags& flags) {
  const auto add = [&](const char* name, double& value, const char* about) {
    command.add_option(name, value, about)->check(CLI::PositiveNumber)->capture_default_str();
  };
  add("--peak-tflops", flags.peak_tflops, "of a rank's processor, in the run's precision");
  add("--mfu", flags.hardware.mfu, "the share of it that matrix products reach");
  add("--node-gbps", flags.node_gbps, "GB/s of a rank to others in its node");
  add("--link-gbps", flags.link_gbps, "GB/s of a rank to other nodes");
  add("--disk-gbps", flags.disk_gbps, "GB/s at which a checkpoint is written");
  add("--mtbf-hours", flags.checkpoint.mtbf_hours,
      "hours between two failures of one rank's machine; n ranks fail n times as often");
  command
      .add_option("--hidden", flags.hardware.hidden,
                  "the share of reductions and gathers that work can hide")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--node-gpus", flags.hardware.node_ranks, "ranks in a node")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

}  // namespace

void AddPlanCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* command =
      app.add_subcommand("plan", "Memory, work and time of a run before it is launched");
  command->footer(
      "Needs no GPU and no weights: it reads the configuration, the model's config.json and the\n"
      "data's index. With --gpus or --memory it also ranks the layouts that fit; exit code 2\n"
      "when none does. The table goes to stderr, JSON lines to stdout (docs/plan.md).\n"
      "Example: osler plan --config train.yaml --gpus 16 --memory 80GiB");
  command->add_option("--config", flags->config, "YAML file of osler train")->required();
  command->add_option("--set", flags->overrides, "override a setting: a.b=value (repeatable)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--gpus", flags->gpus, "ranks to lay the run out on")
      ->check(CLI::Range(1, kMostRanks));
  command->add_option("--memory", flags->memory, "of a rank: 80GiB");
  AddAssumptions(*command, *flags);
  command->callback(
      [&fs, &action, flags] { action = [&fs, flags] { return PlanRun(fs, *flags); }; });
}

}  // namespace osler
