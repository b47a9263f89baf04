#include <ATen/Parallel.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "parallel/launch.h"
#include "parallel/world.h"
#include "tools/commands.h"
#include "tools/launch_flags.h"
#include "trainer/verify/report.h"

namespace osler {
namespace {

struct VerifyFlags {
  std::string model, layouts{StandardVerifyLayouts()}, output;
  int most_ranks = 8;
  uint64_t seed = 0;
  LaunchFlags launch;
};

// Where the ranks of a layout run: threads of this process, or the first ranks of a world.
class Verifier {
 public:
  Verifier(VerifyProblem problem, VerifyReference reference, Communicator& world)
      : problem_(std::move(problem)), reference_(std::move(reference)), world_(world) {}

  // nullopt: on other ranks only. Collective.
  absl::StatusOr<std::optional<VerifyResult>> Run(const VerifyLayout& layout) {
    if (world_.size() == 1) return VerifyOnThreads(problem_, reference_, layout);
    std::optional<VerifyResult> result;
    OSLER_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
      const int idle = world_.rank() < layout.ranks() ? 0 : 1;
      const std::unique_ptr<Communicator> ranks = world_.Split(idle, world_.rank());
      absl::Status mine;
      if (idle == 0) {
        auto one = VerifyOnRanks(problem_, reference_, layout, *ranks);
        mine = one.status();
        if (one.ok()) result = *std::move(one);
      }
      return AgreeOnStatus(world_, mine);
    }));
    return result;
  }

  std::string WhySkipped(const VerifyLayout& layout, int most_ranks) const {
    const int ranks = world_.size() > 1 ? world_.size() : most_ranks;
    if (layout.ranks() <= ranks) return "";
    return world_.size() > 1 ? absl::StrCat(ranks, " ranks run")
                             : absl::StrCat("--ranks is ", ranks);
  }

 private:
  VerifyProblem problem_;
  VerifyReference reference_;
  Communicator& world_;
};

void Print(FILE* file, const std::string& text) {
  std::fputs(text.c_str(), file);
  std::fflush(file);
}

absl::StatusOr<Verifier> MakeVerifier(Fs& fs, const VerifyFlags& flags, Communicator& world) {
  const std::string path = JoinPath(flags.model, "config.json");
  const absl::StatusOr<std::string> config = fs.ReadFile(path);
  if (!config.ok()) {
    return Reclassify(
        Annotate(config.status(), "the model directory must be in Hugging Face layout"),
        ExitCode::kConfig);
  }
  OSLER_ASSIGN_OR_RETURN(VerifyProblem problem, MakeVerifyProblem(*config, path, flags.seed));
  OSLER_ASSIGN_OR_RETURN(VerifyReference reference, ComputeVerifyReference(problem));
  return Verifier(std::move(problem), std::move(reference), world);
}

// Runs what it can, then tells of all that differed.
absl::Status VerifyAll(Fs& fs, const VerifyFlags& flags, Communicator& world) {
  OSLER_ASSIGN_OR_RETURN(const auto layouts, ParseVerifyLayouts(flags.layouts));
  OSLER_ASSIGN_OR_RETURN(Verifier verifier, MakeVerifier(fs, flags, world));
  const bool speaks = world.rank() == 0;
  std::string lines;
  std::vector<std::string> failed;
  if (speaks) Print(stderr, VerifyTableHeader());
  for (const VerifyLayout& layout : layouts) {
    const std::string reason = verifier.WhySkipped(layout, flags.most_ranks);
    if (!reason.empty()) {
      if (speaks) Print(stderr, VerifyTableSkip(layout, reason));
      lines += VerifyJsonSkip(layout, reason);
      continue;
    }
    OSLER_ASSIGN_OR_RETURN(const auto result, verifier.Run(layout));
    if (!result.has_value()) continue;
    if (speaks) Print(stderr, VerifyTableRow(*result));
    lines += VerifyJsonLine(*result);
    const std::vector<std::string> failures = result->Failures();
    if (!failures.empty()) failed.push_back(absl::StrCat(layout.name, " (", failures[0], ")"));
  }
  if (speaks && flags.output.empty()) Print(stdout, lines);
  if (speaks && !flags.output.empty()) {
    OSLER_RETURN_IF_ERROR(Reclassify(WriteFileDurably(fs, flags.output, lines), ExitCode::kConfig));
  }
  if (failed.empty()) return absl::OkStatus();
  return MakeError(ExitCode::kBug,
                   absl::StrCat("not the computation of one rank: ", absl::StrJoin(failed, ", ")));
}

absl::Status Verify(Fs& fs, const VerifyFlags& flags) {
  OSLER_ASSIGN_OR_RETURN(const LaunchInfo launch, DetectLaunch(flags.launch));
  SetLogRank(launch.rank, launch.world_size);
  at::set_num_threads(1);  // ranks are threads or processes already
  OSLER_ASSIGN_OR_RETURN(const World world, ConnectWorld(launch));
  return VerifyAll(fs, flags, *world.comm);
}

}  // namespace

void AddVerifyCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<VerifyFlags>();
  CLI::App* command = app.add_subcommand(
      "verify", "Show that every parallel layout computes what one rank computes");
  command->footer(
      "Trains a tiny random model of the same family in fp64, on one rank and under each\n"
      "layout, and compares every parameter's gradient, losses and the parameters after 5\n"
      "steps (docs/parallelism.md). Ranks are threads of this process, or those of mpirun,\n"
      "torchrun or --rank. The table goes to stderr, JSON lines to stdout or --output; exit\n"
      "code 70 when a layout differs.\n"
      "A layout is parts joined by dots: pipelineN dataN shardN contextN tensorN, zero1\n"
      "zero2 zero3 (with shard), interleaveN (with pipeline), ring gather (with context),\n"
      "recompute selective.\n"
      "Example: osler verify --model models/tiny --layouts tensor2,shard2.tensor2.zero3");
  command->add_option("--model", flags->model, "model directory; only its config.json is read")
      ->required();
  command->add_option("--layouts", flags->layouts, "layouts between commas")->capture_default_str();
  command->add_option("--ranks", flags->most_ranks, "skip layouts of more thread ranks than this")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "of weights and packs")->capture_default_str();
  command->add_option("--output", flags->output, "file for the JSON lines");
  AddLaunchFlags(*command, flags->launch);
  command->callback(
      [&fs, &action, flags] { action = [&fs, flags] { return Verify(fs, *flags); }; });
}

}  // namespace osler
