#include "checkpoint/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/failpoint.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/errors.h"
#include "checkpoint/store_internal.h"

namespace osler {
namespace {

// "step-12.tmp-99" → 12 for kind ".tmp-".
std::optional<int64_t> StepOfLeftover(const std::string& name, std::string_view kind) {
  const size_t at = name.find(kind);
  return at == std::string::npos ? std::nullopt : StepOfName(std::string_view(name).substr(0, at));
}

}  // namespace

std::optional<int64_t> StepOfName(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (name.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  int64_t step = 0;
  const auto [end, error] =
      std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (error != std::errc() || step < 0 || fmt::format("step-{}", step) != name) return std::nullopt;
  return step;
}

CheckpointStore::CheckpointStore(Fs& fs, std::string directory, int64_t keep, int64_t keep_every)
    : fs_(fs), directory_(std::move(directory)), keep_(keep), keep_every_(keep_every) {}

std::string CheckpointStore::StepDirectory(int64_t step) const {
  return JoinPath(directory_, fmt::format("step-{}", step));
}

absl::StatusOr<std::vector<int64_t>> CheckpointStore::Steps() const {
  std::vector<int64_t> steps;
  if (!fs_.Exists(directory_)) return steps;
  const auto names = fs_.List(directory_);
  if (!names.ok()) return Reclassify(names.status(), ExitCode::kCheckpoint);
  for (const std::string& name : *names) {
    const std::optional<int64_t> step = StepOfName(name);
    if (step.has_value() && fs_.IsDirectory(JoinPath(directory_, name))) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

absl::Status CheckpointStore::MovePointer(std::string_view name, int64_t step) {
  Failpoint(name);
  const std::string path = JoinPath(directory_, name);
  absl::Status status = WriteFileDurably(fs_, path, fmt::format("step-{}\n", step));
  if (!status.ok()) fs_.Remove(path + ".tmp").IgnoreError();
  return status;
}

absl::Status CheckpointStore::MoveUnlessThere(std::string_view name, int64_t step) {
  const auto now = StepOfPointer(name);
  if (now.ok() && *now == step) return absl::OkStatus();
  return MovePointer(name, step);
}

absl::Status CheckpointStore::MoveLatest(int64_t step) {
  return MoveUnlessThere(kLatestName, step);
}

absl::Status CheckpointStore::MoveBest(int64_t step) {
  if (!fs_.Exists(StepDirectory(step))) return absl::OkStatus();
  return MoveUnlessThere(kBestName, step);
}

absl::StatusOr<std::optional<int64_t>> CheckpointStore::Best() const {
  return StepOfPointer(kBestName);
}

absl::StatusOr<std::optional<int64_t>> CheckpointStore::StepOfPointer(std::string_view name) const {
  const std::string path = JoinPath(directory_, name);
  if (!fs_.Exists(path)) return std::nullopt;
  const auto text = fs_.ReadFile(path);
  if (!text.ok()) return Reclassify(text.status(), ExitCode::kCheckpoint);
  const std::optional<int64_t> step =
      StepOfName(std::string_view(*text).substr(0, text->find('\n')));
  if (step.has_value() && fs_.IsDirectory(StepDirectory(*step))) return step;
  return CheckpointError(
      fmt::format("{} names {}, which is not there", path, Printable(text->substr(0, 32))));
}

// Renames first: a removal that dies half way must not leave a half checkpoint under a finished
// one's name.
absl::Status CheckpointStore::Retain(int64_t saved) {
  OSLER_ASSIGN_OR_RETURN(const std::vector<int64_t> steps, Steps());
  const auto best = Best();
  std::vector<std::string> doomed;
  const auto count = static_cast<int64_t>(steps.size());
  absl::Status status;
  for (int64_t i = 0; keep_ > 0 && i < count - keep_; ++i) {
    const int64_t step = steps[static_cast<size_t>(i)];
    if (step == saved || (best.ok() && *best == step)) continue;
    if (keep_every_ > 0 && step % keep_every_ == 0) continue;
    doomed.push_back(OwnName(StepDirectory(step), ".tmp-removed-"));
    status.Update(fs_.Rename(StepDirectory(step), doomed.back()));
  }
  Failpoint("retention");
  for (const std::string& path : doomed) status.Update(fs_.RemoveTree(path));
  return status;
}

absl::Status CheckpointStore::PutBackReplaced() {
  if (!fs_.Exists(directory_)) return absl::OkStatus();
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(directory_));
  for (const std::string& name : names) {
    const std::optional<int64_t> step = StepOfLeftover(name, kReplaced);
    if (!step.has_value() || fs_.Exists(StepDirectory(*step))) continue;
    OSLER_RETURN_IF_ERROR(fs_.Rename(JoinPath(directory_, name), StepDirectory(*step)));
    OSLER_RETURN_IF_ERROR(fs_.SyncDirectory(directory_));
  }
  return absl::OkStatus();
}

absl::Status CheckpointStore::CleanUp() {
  if (!fs_.Exists(directory_)) return absl::OkStatus();
  const std::string where = "cannot clean up " + directory_;
  if (absl::Status status = PutBackReplaced(); !status.ok())
    return AsCheckpointError(status, where);
  const auto names = fs_.List(directory_);
  if (!names.ok()) return AsCheckpointError(names.status(), where);
  for (const std::string& name : *names) {
    const bool leftover = StepOfLeftover(name, kTemporary).has_value() ||
                          StepOfLeftover(name, kReplaced).has_value() ||
                          name == std::string(kLatestName) + ".tmp" ||
                          name == std::string(kBestName) + ".tmp";
    if (!leftover) continue;
    if (absl::Status status = fs_.RemoveTree(JoinPath(directory_, name)); !status.ok()) {
      return AsCheckpointError(status, where);
    }
  }
  return absl::OkStatus();
}

}  // namespace osler
