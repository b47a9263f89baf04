#include <cstdlib>
#include <memory>
#include <string>

#include "base/errors.h"
#include "base/log.h"
#include "tools/commands.h"

namespace osler {
namespace {

constexpr char kAbout[] =
    "Osler trains medical language models on de-identified records and exports their weights.\n"
    "Example: osler train --config train.yaml --set optimizer.lr=2e-4";

int Report(const absl::Status& status) {
  const ExitCode code = ExitCodeOf(status);
  if (code == ExitCode::kStopped) {
    LogInfo("{}", std::string(status.message()));
  } else if (!status.ok()) {
    LogError("{}", std::string(status.message()));
  }
  return static_cast<int>(code);
}

int Main(int argc, char** argv) {
  const std::unique_ptr<Fs> posix = MakePosixFs();
  Fs* fs = posix.get();
  std::unique_ptr<Fs> faulty;
  if (const char* faults = std::getenv("OSLER_FS_FAULTS"); faults != nullptr) {
    auto made = MakeFaultFs(*posix, faults);
    if (!made.ok()) return Report(made.status());
    faulty = *std::move(made);
    fs = faulty.get();
  }

  CLI::App app(kAbout, "osler");
  app.require_subcommand(1);
  Action action;
  AddDataCommand(app, *fs, action);
  AddInitCommand(app, *fs, action);
  AddTrainCommand(app, *fs, action);
  AddTokenizeCommand(app, *fs, action);
  AddScoreCommand(app, *fs, action);
  AddGenerateCommand(app, *fs, action);
  AddExportCommand(app, *fs, action);
  AddCheckpointCommand(app, *fs, action);
  AddPlanCommand(app, *fs, action);
  AddVerifyCommand(app, *fs, action);
  AddDoctorCommand(app, *fs, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kConfig);
  }
  return Report(action());
}

}  // namespace
}  // namespace osler

int main(int argc, char** argv) { return osler::Main(argc, argv); }
