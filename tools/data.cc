#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddDataCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("data", "to be written");
  command->callback([&action] { action = [] { return ConfigError("data: to be written"); }; });
}

}  // namespace osler
