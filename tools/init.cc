#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddInitCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("init", "to be written");
  command->callback([&action] { action = [] { return ConfigError("init: to be written"); }; });
}

}  // namespace osler
