#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/status_macros.h"
#include "data/shard.h"
#include "tools/data_commands.h"

namespace osler {
namespace {

absl::Status Verify(Fs& fs, const std::string& path) {
  for (const std::string& directory : ShardDirectories(fs, path)) {
    OSLER_ASSIGN_OR_RETURN(const std::unique_ptr<ShardReader> reader,
                           ShardReader::Open(fs, directory, ShardCheck::kFull));
    OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(directory));
    for (const std::string& name : names) {
      if (!fs.IsDirectory(JoinPath(directory, name))) LogInfo("ok  {}", JoinPath(directory, name));
    }
    LogInfo("{}: {} records, every byte is that of build {}", directory, reader->size(),
            reader->certificate().build_id);
  }
  return absl::OkStatus();
}

}  // namespace

void AddDataVerify(CLI::App& data, Fs& fs, Action& action) {
  CLI::App* command = data.add_subcommand(
      "verify", "Check every byte of shard directories against their manifests.");
  command->footer(
      "A damaged file is named and the exit code is 3.\nExample: osler data verify shards");
  auto path = std::make_shared<std::string>();
  command->add_option("path", *path, "a build's output, or one of its shard directories")
      ->required();
  command->callback([&fs, &action, path] { action = [&fs, path] { return Verify(fs, *path); }; });
}

}  // namespace osler
