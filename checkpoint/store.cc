#include "checkpoint/store.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/match.h"
#include "base/digest.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/dtype.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store_internal.h"

namespace osler {
namespace {

constexpr char kTemporary[] = ".tmp-", kReplaced[] = ".old-";

std::string Own(const std::string& path, std::string_view kind) {
  return fmt::format("{}{}{}", path, kind, getpid());
}

// "step-12.tmp-99" → 12 for kind ".tmp-".
std::optional<int64_t> StepOfLeftover(const std::string& name, std::string_view kind) {
  const size_t at = name.find(kind);
  return at == std::string::npos ? std::nullopt : StepOfName(std::string_view(name).substr(0, at));
}

absl::Status CheckState(int64_t step, const CheckpointState& state) {
  const auto bug = [](const std::string& what) {
    return MakeError(ExitCode::kBug, "checkpoint state: " + what);
  };
  if (step < 0) return bug("negative step");
  for (const StateEntry& entry : state.tensors) {
    const at::Tensor& tensor = entry.tensor;
    const std::string file = entry.file + kTensorFileSuffix;
    if (!IsPlainFileName(file) || state.texts.contains(file))
      return bug("bad file " + Printable(file));
    if (entry.parts.has_value()) continue;
    if (!tensor.defined() || !tensor.device().is_cpu() || !tensor.is_contiguous() ||
        DtypeName(tensor.scalar_type()).empty()) {
      return bug(Printable(entry.name) +
                 " is not a contiguous CPU tensor of a type that files have");
    }
  }
  for (const auto& [name, text] : state.texts) {
    if (!IsPlainFileName(name) || absl::EndsWith(name, kTensorFileSuffix))
      return bug("bad file " + Printable(name));
  }
  return absl::OkStatus();
}

// Refuses before a byte is written what cannot fit: the write would fail after filling the disk.
absl::Status CheckSpace(Fs& fs, const std::string& directory, const CheckpointState& state) {
  int64_t need = 0;
  for (const StateEntry& entry : state.tensors) {
    const TensorToWrite one = InFile(entry);
    need += TensorBytes(one.dtype, one.shape).value_or(0);
  }
  for (const auto& [name, text] : state.texts) need += static_cast<int64_t>(text.size());
  const auto free = fs.FreeBytes(directory);
  if (!free.ok() || *free >= need)
    return absl::OkStatus();  // no answer: the write itself will tell
  return absl::ResourceExhaustedError(fmt::format("{} has {} MiB free, the checkpoint needs {} MiB",
                                                  directory, *free >> 20, (need >> 20) + 1));
}

using Groups = std::vector<std::pair<std::string, std::vector<const StateEntry*>>>;

Groups ByFile(const CheckpointState& state) {
  Groups groups;
  for (const StateEntry& entry : state.tensors) {
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const auto& g) { return g.first == entry.file; });
    if (it == groups.end()) it = groups.insert(it, {entry.file, {}});
    it->second.push_back(&entry);
  }
  return groups;
}

absl::StatusOr<ManifestFile> WriteTensors(Fs& fs, const std::string& directory,
                                          const std::string& file,
                                          const std::vector<const StateEntry*>& entries,
                                          const std::function<void()>& after_first_part) {
  std::vector<TensorToWrite> tensors;
  for (const StateEntry* entry : entries) tensors.push_back(InFile(*entry));
  at::Tensor made;  // the one that is being written
  const auto bytes_of = [&](size_t i) -> absl::StatusOr<std::string_view> {
    if (!entries[i]->parts.has_value()) return tensors[i].bytes;
    made.reset();
    OSLER_RETURN_IF_ERROR(CatchTorch([&] {
      made = entries[i]->parts->whole();
      return absl::OkStatus();
    }));
    return ToWrite(entries[i]->name, made).bytes;
  };
  const std::string name = file + kTensorFileSuffix;
  OSLER_ASSIGN_OR_RETURN(const WrittenFile written,
                         WriteSafetensors(fs, JoinPath(directory, name), tensors,
                                          {{"format", "pt"}}, bytes_of, after_first_part));
  return ManifestFile{name, written.size, written.crc32c, static_cast<int64_t>(tensors.size())};
}

// `half_way` runs when half of the text is written and nothing is synced.
absl::Status WriteText(Fs& fs, const std::string& path, std::string_view text,
                       const std::function<void()>& half_way) {
  OSLER_ASSIGN_OR_RETURN(const auto file, fs.Open(path, OpenMode::kTruncate));
  OSLER_RETURN_IF_ERROR(file->Append(text.substr(0, text.size() / 2)));
  if (half_way) half_way();
  OSLER_RETURN_IF_ERROR(file->Append(text.substr(text.size() / 2)));
  OSLER_RETURN_IF_ERROR(file->Sync());
  return file->Close();
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

CheckpointStore::CheckpointStore(Fs& fs, std::string directory, int64_t keep)
    : fs_(fs), directory_(std::move(directory)), keep_(keep) {}

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

absl::Status CheckpointStore::Save(int64_t step, const CheckpointState& state,
                                   std::optional<int64_t> best) {
  OSLER_RETURN_IF_ERROR(CheckState(step, state));
  const std::string temporary = Own(StepDirectory(step), kTemporary);
  absl::Status status = Stage(temporary, step, state);
  if (status.ok()) status = Publish(temporary, step);
  if (!status.ok()) {
    fs_.RemoveTree(temporary).IgnoreError();  // CleanUp tries again at the next start
    return AsCheckpointError(status, fmt::format("cannot save checkpoint step-{}", step));
  }
  status = MovePointer(kLatestName, step);
  if (status.ok() && best.has_value()) status = MoveBest(*best);
  if (!status.ok()) {
    return AsCheckpointError(
        status,
        fmt::format("checkpoint step-{} is saved, but cannot move 'latest' and 'best'", step));
  }
  if (status = Retain(step); !status.ok()) {
    LogWarning("cannot remove older checkpoints: {}", std::string(status.message()));
  }
  return absl::OkStatus();
}

absl::Status CheckpointStore::Stage(const std::string& temporary, int64_t step,
                                    const CheckpointState& state) {
  OSLER_RETURN_IF_ERROR(fs_.RemoveTree(temporary));
  OSLER_RETURN_IF_ERROR(fs_.MakeDirectories(temporary));
  OSLER_RETURN_IF_ERROR(fs_.SyncDirectory(ParentDirectory(directory_)));
  Failpoint("staging");
  OSLER_RETURN_IF_ERROR(CheckSpace(fs_, temporary, state));
  Manifest manifest;
  manifest.step = step;
  bool first = true;
  const auto shard_write = [&] {
    if (std::exchange(first, false)) Failpoint("shard_write");
  };
  for (const auto& [file, entries] : ByFile(state)) {
    OSLER_ASSIGN_OR_RETURN(ManifestFile written,
                           WriteTensors(fs_, temporary, file, entries, shard_write));
    manifest.files.push_back(std::move(written));
  }
  shard_write();
  for (const auto& [name, text] : state.texts) {
    OSLER_RETURN_IF_ERROR(WriteText(fs_, JoinPath(temporary, name), text, nullptr));
    manifest.files.push_back({name, static_cast<int64_t>(text.size()), Crc32c(text)});
  }
  OSLER_RETURN_IF_ERROR(WriteText(fs_, JoinPath(temporary, kManifestName), FormatManifest(manifest),
                                  [] { Failpoint("manifest"); }));
  return fs_.SyncDirectory(temporary);
}

// A directory cannot be renamed over a full one, so a checkpoint of the same step first steps
// aside; whoever dies between the two renames leaves it for PutBackReplaced.
absl::Status CheckpointStore::Publish(const std::string& temporary, int64_t step) {
  const std::string final = StepDirectory(step), replaced = Own(final, kReplaced);
  const bool replace = fs_.Exists(final);
  if (replace) {
    OSLER_RETURN_IF_ERROR(fs_.RemoveTree(replaced));
    OSLER_RETURN_IF_ERROR(fs_.Rename(final, replaced));
  }
  Failpoint("rename");
  if (absl::Status status = fs_.Rename(temporary, final); !status.ok()) {
    if (replace) status.Update(fs_.Rename(replaced, final));
    return status;
  }
  OSLER_RETURN_IF_ERROR(fs_.SyncDirectory(directory_));
  return replace ? fs_.RemoveTree(replaced) : absl::OkStatus();
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
    doomed.push_back(Own(StepDirectory(step), ".tmp-removed-"));
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
