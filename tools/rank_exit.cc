#include "tools/rank_exit.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"

namespace osler {
namespace {

using Json = nlohmann::ordered_json;

// For the main thread to come to its end after a verdict.
constexpr auto kGrace = std::chrono::milliseconds(400);

[[noreturn]] void EndProcess(const absl::Status& status) {
  LogError("{}", std::string(status.message()));
  std::fflush(nullptr);
  std::_Exit(static_cast<int>(ExitCodeOf(status)));
}

// Ranks agree on these before they end; the others may be one rank's alone.
bool Agreed(const absl::Status& status) {
  const ExitCode code = ExitCodeOf(status);
  return code != ExitCode::kDevice && code != ExitCode::kBug;
}

Json ToJson(const FlightRecorder::Entry& entry) {
  return {{"number", entry.number},  {"group", entry.group}, {"operation", entry.operation},
          {"tensor", entry.what},    {"block", entry.block}, {"bytes", entry.bytes},
          {"seconds", entry.seconds}};
}

}  // namespace

RankExit::RankExit(Fs& fs, World& world, std::string run_directory)
    : fs_(fs), world_(world), log_directory_(JoinPath(run_directory, "log")) {
  world_.control->Watch([this](const Blame& blame) { OnVerdict(blame); });
}

RankExit::~RankExit() { world_.control->Watch(nullptr); }

std::string RankExit::Doing() const {
  const std::vector<FlightRecorder::Entry> pending = world_.comm->recorder().Pending();
  if (pending.empty()) return "";
  const FlightRecorder::Entry& first = pending.front();
  return absl::StrCat("; this rank was in ", first.operation,
                      first.what.empty() ? "" : absl::StrCat(" of ", first.what),
                      first.block.empty() ? "" : absl::StrCat(" (", first.block, ")"));
}

void RankExit::Record(const absl::Status& status, const std::optional<Blame>& blame) {
  Json record = {{"rank", world_.control->rank()},
                 {"world_size", world_.control->world_size()},
                 {"exit_code", static_cast<int>(ExitCodeOf(status))},
                 {"message", std::string(status.message())}};
  if (blame.has_value()) {
    record["blame"] = {{"rank", blame->rank}, {"reason", blame->reason}};
    const FlightRecorder& recorder = world_.comm->recorder();
    const std::vector<FlightRecorder::Entry> pending = recorder.Pending();
    const FlightRecorder::Entry now = pending.empty() ? FlightRecorder::Entry{} : pending.front();
    record["operation"] = now.operation;
    record["tensor"] = now.what;
    record["block"] = pending.empty() ? recorder.block() : now.block;
    record["pending"] = Json::array();
    for (const FlightRecorder::Entry& entry : pending) record["pending"].push_back(ToJson(entry));
    const std::optional<FlightRecorder::Entry> last = recorder.LastCompleted();
    record["last_completed"] = last.has_value() ? ToJson(*last) : Json();
  }
  const std::string name = absl::StrCat("exit.rank", world_.control->rank(), ".json");
  absl::Status written = fs_.MakeDirectories(log_directory_);
  if (written.ok()) {
    const std::string text = record.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
    written = WriteFileDurably(fs_, JoinPath(log_directory_, name), text);
  }
  if (!written.ok()) LogWarning("{}", std::string(written.message()));
}

// In the control thread; the main thread may be stuck in a kernel or in a collective.
void RankExit::OnVerdict(const Blame& blame) {
  const absl::Status status = DeviceError(absl::StrCat(Text(blame), Doing()));
  {
    const std::lock_guard lock(record_mutex_);
    Record(status, blame);
  }
  world_.comm->Abort(Text(blame));
  world_.control->WaitUntilTold();
  {
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, kGrace, [&] { return finishing_; })) return;
  }
  const std::lock_guard lock(record_mutex_);
  EndProcess(status);
}

absl::Status RankExit::Finish(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    finishing_ = true;
    changed_.notify_all();
  }
  const std::optional<Blame> blame = world_.control->Leave(status);
  const bool several = world_.control->world_size() > 1;
  const bool mine = !blame.has_value() || blame->rank == world_.control->rank();
  absl::Status last = status;
  if (!Agreed(status) && !mine) last = DeviceError(absl::StrCat(Text(*blame), Doing()));
  // A directory that belongs to another run keeps that run's last words.
  if (ExitCodeOf(last) != ExitCode::kConfig &&
      last.message().find("another run") == absl::string_view::npos) {
    const std::lock_guard lock(record_mutex_);
    Record(last, Agreed(status) ? std::nullopt : blame);
  }
  if (several && !Agreed(status)) EndProcess(last);
  return last;
}

}  // namespace osler
