#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddTokenizeCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("tokenize", "to be written");
  command->callback([&action] { action = [] { return ConfigError("tokenize: to be written"); }; });
}

}  // namespace osler
