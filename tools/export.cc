#include <memory>
#include <string>

#include "base/log.h"
#include "base/status_macros.h"
#include "tools/commands.h"
#include "trainer/export_run.h"

namespace osler {
namespace {

struct ExportFlags {
  std::string run, output;
  CheckpointChoice choice;
};

absl::Status Export(Fs& fs, const ExportFlags& flags) {
  OSLER_ASSIGN_OR_RETURN(const RunExport done,
                         ExportRun(fs, flags.run, flags.output, flags.choice));
  LogInfo("exported step {} to {}: {} tensors ({} trained, {} copied from {}), {:.1f} MiB",
          done.step, flags.output, done.report.tensors, done.report.trained, done.report.copied,
          done.base, static_cast<double>(done.report.bytes) / (1 << 20));
  return absl::OkStatus();
}

}  // namespace

void AddExportCommand(CLI::App& app, Fs& fs, Action& action) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* command =
      app.add_subcommand("export", "Write a run's weights as a Hugging Face model directory");
  command->footer(
      "Names, dtypes and side files are those of the base model; transformers loads the result.\n"
      "Example: osler export --run runs/visits --output models/visits");
  command->add_option("--run", flags->run, "run directory (train.output)")->required();
  command->add_option("--output", flags->output, "directory to write")->required();
  CLI::Option* step = command->add_option_function<int64_t>(
      "--step", [flags](int64_t wanted) { flags->choice = wanted; },
      "checkpoint to export (default: the newest good one)");
  command
      ->add_flag_callback(
          "--best", [flags] { flags->choice = BestCheckpoint(); },
          "the checkpoint of the lowest validation loss (checkpoint.keep_best)")
      ->excludes(step);
  command->callback(
      [&fs, &action, flags] { action = [&fs, flags] { return Export(fs, *flags); }; });
}

}  // namespace osler
