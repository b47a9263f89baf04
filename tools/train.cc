#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddTrainCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("train", "to be written");
  command->callback([&action] { action = [] { return ConfigError("train: to be written"); }; });
}

}  // namespace osler
