#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddExportCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("export", "to be written");
  command->callback([&action] { action = [] { return ConfigError("export: to be written"); }; });
}

}  // namespace osler
