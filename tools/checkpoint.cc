#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddCheckpointCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("checkpoint", "to be written");
  command->callback([&action] { action = [] { return ConfigError("checkpoint: to be written"); }; });
}

}  // namespace osler
