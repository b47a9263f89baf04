#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/merge.h"
#include "checkpoint/store.h"
#include "tools/commands.h"

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kExamples[] =
    "Looks at the checkpoints of a run; nothing of it is changed. Runs go on under any mesh and "
    "number\n"
    "of ranks as they are; reshard is for other programs.\n"
    "Example: osler checkpoint inspect RUN_DIR\n"
    "         osler checkpoint verify RUN_DIR --step 20\n"
    "         osler checkpoint reshard RUN_DIR --output whole";

struct Flags {
  std::string path, output;
  std::optional<int64_t> step;
  bool json = false;
};

// The directory that holds the step-N directories, and the steps the user asked for (all when none
// is named).
struct Chosen {
  std::string directory;
  std::vector<int64_t> steps;
};

absl::StatusOr<Chosen> Choose(Fs& fs, const Flags& flags) {
  const std::string path = CanonicalPath(flags.path);
  const std::string name = path.substr(path.find_last_of('/') + 1),
                    below = JoinPath(path, "checkpoints");
  Chosen chosen;
  std::optional<int64_t> wanted = flags.step;
  if (StepOfName(name).has_value() && fs.IsDirectory(path)) {
    chosen.directory = ParentDirectory(path);
    if (wanted.value_or(*StepOfName(name)) != *StepOfName(name)) {
      return ConfigError(fmt::format("{} is not step {}: leave out --step", flags.path, *wanted));
    }
    wanted = StepOfName(name);
  } else if (fs.IsDirectory(below)) {
    chosen.directory = below;
  } else if (name == "checkpoints" && fs.IsDirectory(path)) {
    chosen.directory = path;
  } else {
    return CheckpointError(flags.path +
                           " holds no checkpoints: give a RUN_DIR or RUN_DIR/checkpoints/step-N");
  }
  OSLER_ASSIGN_OR_RETURN(chosen.steps, CheckpointStore(fs, chosen.directory, 0).Steps());
  if (!wanted.has_value()) return chosen;
  if (std::find(chosen.steps.begin(), chosen.steps.end(), *wanted) == chosen.steps.end()) {
    return CheckpointError(fmt::format("there is no step-{} in {}: it has steps [{}]", *wanted,
                                       chosen.directory, fmt::join(chosen.steps, ", ")));
  }
  chosen.steps = {*wanted};
  return chosen;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// What the files beside the checkpoints point to.
struct Pointers {
  std::string latest, best;
};

Pointers ReadPointers(Fs& fs, const std::string& directory) {
  const auto read = [&](const char* name) {
    return FirstLine(fs.ReadFile(JoinPath(directory, name)).value_or(""));
  };
  return {read("latest"), read("best")};
}

void PrintStep(int64_t step, const absl::StatusOr<CheckpointReport>& report,
               const Pointers& pointers, bool json) {
  const std::string name = fmt::format("step-{}", step);
  const bool is_latest = pointers.latest == name, is_best = pointers.best == name;
  const std::string error(report.status().message());
  if (json) {
    Json line = {{"step", step},
                 {"health", report.ok() ? "good" : "damaged"},
                 {"latest", is_latest},
                 {"best", is_best}};
    if (report.ok()) {
      line.update(
          {{"bytes", report->bytes}, {"tensors", report->tensors}, {"files", report->files}});
    } else {
      line["error"] = error;
    }
    fmt::print("{}\n", line.dump(-1, ' ', false, Json::error_handler_t::replace));
  } else if (report.ok()) {
    fmt::print(stderr, "{:>10} {:>7} {:>8} {:>12.1f}  good{}{}\n", step, report->files.size(),
               report->tensors, static_cast<double>(report->bytes) / (1 << 20),
               is_latest ? ", latest" : "", is_best ? ", best" : "");
  } else {
    fmt::print(stderr, "{:>10} {:>7} {:>8} {:>12}  {}\n", step, "-", "-", "-", error);
  }
}

// What an earlier start found damaged and set aside.
void PrintQuarantined(Fs& fs, const std::string& directory, bool json) {
  constexpr std::string_view kSuffix = ".bad";
  const auto names = fs.List(directory);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, ".bad")) continue;
    const auto step = StepOfName(std::string_view(name).substr(0, name.size() - kSuffix.size()));
    if (!step.has_value()) continue;
    const std::string reason =
        FirstLine(fs.ReadFile(JoinPath(directory, name + ".txt")).value_or("reason unknown"));
    if (json) {
      const Json line = {{"step", *step}, {"health", "quarantined"}, {"error", reason}};
      fmt::print("{}\n", line.dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      fmt::print(stderr, "{:>10} {:>7} {:>8} {:>12}  quarantined: {}\n", *step, "-", "-", "-",
                 reason);
    }
  }
}

absl::Status Inspect(Fs& fs, const Flags& flags) {
  OSLER_ASSIGN_OR_RETURN(const Chosen chosen, Choose(fs, flags));
  const CheckpointStore store(fs, chosen.directory, 0);
  const Pointers pointers = ReadPointers(fs, chosen.directory);
  if (!flags.json) {
    fmt::print(stderr, "{}\n{:>10} {:>7} {:>8} {:>12}  health\n", chosen.directory, "step", "files",
               "tensors", "MiB");
  }
  for (const int64_t step : chosen.steps) PrintStep(step, store.Verify(step), pointers, flags.json);
  if (!flags.step.has_value()) PrintQuarantined(fs, chosen.directory, flags.json);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Verify(Fs& fs, const Flags& flags) {
  OSLER_ASSIGN_OR_RETURN(const Chosen chosen, Choose(fs, flags));
  if (chosen.steps.empty())
    return CheckpointError(chosen.directory + " holds no finished checkpoint");
  const CheckpointStore store(fs, chosen.directory, 0);
  std::vector<std::string> errors;
  for (const int64_t step : chosen.steps) {
    const auto report = store.Verify(step);
    if (!report.ok()) {
      errors.emplace_back(report.status().message());
      continue;
    }
    LogInfo("step-{} is good: {} files, {} tensors, {} bytes", step, report->files.size(),
            report->tensors, report->bytes);
  }
  return errors.empty() ? absl::OkStatus() : CheckpointError(absl::StrJoin(errors, "; "));
}

absl::Status Reshard(Fs& fs, const Flags& flags) {
  OSLER_ASSIGN_OR_RETURN(const Chosen chosen, Choose(fs, flags));
  if (chosen.steps.empty())
    return CheckpointError(chosen.directory + " holds no finished checkpoint");
  const int64_t step = chosen.steps.back();
  const std::string from = CheckpointStore(fs, chosen.directory, 0).StepDirectory(step);
  OSLER_RETURN_IF_ERROR(MergeCheckpoint(fs, from, step, flags.output));
  LogInfo("step-{} with whole tensors is in {}", step, flags.output);
  return absl::OkStatus();
}

CLI::App* AddPart(CLI::App& command, const char* name, const char* about,
                  const std::shared_ptr<Flags>& flags) {
  CLI::App* part = command.add_subcommand(name, about);
  part->add_option("RUN_DIR", flags->path, "a run directory, or one checkpoints/step-N in it")
      ->required();
  part->add_option("--step", flags->step, "only this step")->check(CLI::NonNegativeNumber);
  return part;
}

}  // namespace

void AddCheckpointCommand(CLI::App& app, Fs& fs, Action& action) {
  CLI::App* command = app.add_subcommand("checkpoint", kExamples);
  command->require_subcommand(1);
  const auto flags = std::make_shared<Flags>();
  CLI::App* inspect = AddPart(*command, "inspect",
                              "A table of the checkpoints: size, tensors, health.\n"
                              "Example: osler checkpoint inspect RUN_DIR --json",
                              flags);
  inspect->add_flag("--json", flags->json,
                    "one JSON line a checkpoint on stdout in place of the table");
  CLI::App* verify =
      AddPart(*command, "verify",
              "Checks every byte against the manifest; exit code 5 names a damaged file.\n"
              "Example: osler checkpoint verify RUN_DIR --step 20",
              flags);
  CLI::App* reshard = AddPart(*command, "reshard",
                              "Writes a checkpoint of many ranks (the newest, or --step) as one of "
                              "whole tensors.\n"
                              "Example: osler checkpoint reshard RUN_DIR --output whole",
                              flags);
  reshard->add_option("--output", flags->output, "directory for step-N")->required();
  reshard->callback(
      [&fs, &action, flags] { action = [&fs, flags] { return Reshard(fs, *flags); }; });
  inspect->callback(
      [&fs, &action, flags] { action = [&fs, flags] { return Inspect(fs, *flags); }; });
  verify->callback([&fs, &action, flags] { action = [&fs, flags] { return Verify(fs, *flags); }; });
}

}  // namespace osler
