#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/status_macros.h"
#include "configs/config.h"
#include "data/build.h"
#include "data/shard.h"
#include "tools/data_commands.h"
#include "tools/version.h"

namespace osler {
namespace {

constexpr char kAbout[] =
    "Read the sources, remove identifiers and write shards: OUTPUT/train, and OUTPUT/validation if "
    "the\n"
    "configuration splits.";
constexpr char kMore[] =
    "Needs no tokenizer; with --model the token lengths are measured now instead of at the first "
    "training.\n"
    "An earlier output stays as it was if the build fails.\n"
    "Example: osler data build --config build.yaml --model gemma-3-1b-it --set "
    "split.validation=0.1";

struct Flags {
  std::string config, model;
  std::vector<std::string> overrides;
};

void LogLines(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    LogInfo("{}", text.substr(at, end - at));
    at = end + 1;
  }
}

absl::Status Build(Fs& fs, const Flags& flags) {
  OSLER_ASSIGN_OR_RETURN(const config::Build build,
                         LoadBuildConfig(fs, flags.config, flags.overrides));
  BuildOptions options;
  options.tool_version = kOslerVersion;
  options.model_directory = flags.model;
  options.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  OSLER_ASSIGN_OR_RETURN(const BuildReport report, BuildShards(fs, build, options));
  LogLines(ReportTable(report));
  for (const std::string& directory : ShardDirectories(fs, build.output().path())) {
    OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<ShardReader> reader,
                           ShardReader::Open(fs, directory));
    LogInfo("{}: {} records in {} shard file{}, {} bytes", directory, reader->size(),
            reader->shard_files(), reader->shard_files() == 1 ? "" : "s", reader->bytes());
  }
  return absl::OkStatus();
}

}  // namespace

void AddDataBuild(CLI::App& data, Fs& fs, Action& action) {
  CLI::App* command = data.add_subcommand("build", kAbout);
  command->footer(kMore);
  auto flags = std::make_shared<Flags>();
  command->add_option("--config", flags->config, "YAML file (docs/config.md)")->required();
  command->add_option("--model", flags->model,
                      "model directory whose tokenizer measures the records");
  command->add_option("--set", flags->overrides, "key=value over the file, repeatable")
      ->take_all()
      ->allow_extra_args(false);
  command->callback([&fs, &action, flags] { action = [&fs, flags] { return Build(fs, *flags); }; });
}

}  // namespace osler
