#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddScoreCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("score", "to be written");
  command->callback([&action] { action = [] { return ConfigError("score: to be written"); }; });
}

}  // namespace osler
