// The subcommands of the `osler` program. Each Add… function declares one on `app` and, when the
// user chose it, leaves its work in `action`; main runs that and turns the status into the exit
// code. One short file each.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"
#include "base/fs.h"

namespace osler {

using Action = std::function<absl::Status()>;

void AddDataCommand(CLI::App& app, Fs& fs, Action& action);  // build, inspect, verify
void AddInitCommand(CLI::App& app, Fs& fs, Action& action);
void AddTrainCommand(CLI::App& app, Fs& fs, Action& action);
void AddTokenizeCommand(CLI::App& app, Fs& fs, Action& action);
void AddScoreCommand(CLI::App& app, Fs& fs, Action& action);
void AddGenerateCommand(CLI::App& app, Fs& fs, Action& action);
void AddExportCommand(CLI::App& app, Fs& fs, Action& action);
void AddCheckpointCommand(CLI::App& app, Fs& fs, Action& action);  // inspect, verify
void AddVerifyCommand(CLI::App& app, Fs& fs, Action& action);
void AddPlanCommand(CLI::App& app, Fs& fs, Action& action);
void AddDoctorCommand(CLI::App& app, Fs& fs, Action& action);

}  // namespace osler
