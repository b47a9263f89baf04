#include "base/errors.h"
#include "tools/commands.h"

namespace osler {

void AddDoctorCommand(CLI::App& app, Fs&, Action& action) {
  CLI::App* command = app.add_subcommand("doctor", "to be written");
  command->callback([&action] { action = [] { return ConfigError("doctor: to be written"); }; });
}

}  // namespace osler
