#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/match.h"
#include "base/digest.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/errors.h"
#include "checkpoint/part_metadata.h"
#include "checkpoint/reader.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store.h"
#include "checkpoint/store_internal.h"

namespace osler {
namespace {

absl::Status Bug(const std::string& what) {
  return MakeError(ExitCode::kBug, "checkpoint state: " + what);
}

// "weights.rank3.safetensors"; of one rank "weights.safetensors".
std::string FileName(const std::string& group, RankOf rank) {
  const std::string whose = rank.size == 1 ? "" : fmt::format(".rank{}", rank.rank);
  return group + whose + kTensorFileSuffix;
}

absl::Status CheckTensors(const CheckpointState& state) {
  for (const StateEntry& entry : state.tensors) {
    const at::Tensor& tensor = entry.tensor;
    const std::string file = entry.group + kTensorFileSuffix;
    if (!IsPlainFileName(file) || GroupOfFile(file) != entry.group || state.texts.contains(file))
      return Bug("bad file " + Printable(file));
    if (!tensor.defined() || (entry.written && !tensor.device().is_cpu()) ||
        !tensor.is_contiguous() || DtypeName(tensor.scalar_type()).empty() ||
        (entry.part.has_value() && entry.part->count > tensor.numel())) {
      return Bug(Printable(entry.name) +
                 " is not a contiguous CPU tensor of a type that files have");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTexts(const std::map<std::string, std::string>& texts) {
  for (const auto& [name, text] : texts) {
    if (!IsPlainFileName(name) || absl::EndsWith(name, kTensorFileSuffix))
      return Bug("bad file " + Printable(name));
  }
  return absl::OkStatus();
}

// Entries of each group that this rank writes, in the state's order.
using Groups = std::vector<std::pair<std::string, std::vector<const StateEntry*>>>;

Groups WrittenByGroup(const CheckpointState& state) {
  Groups groups;
  for (const StateEntry& entry : state.tensors) {
    const bool empty = entry.part.has_value() && entry.part->count == 0;
    if (!entry.written || (empty && !IsWhole(*entry.part))) continue;
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const auto& g) { return g.first == entry.group; });
    if (it == groups.end()) it = groups.insert(it, {entry.group, {}});
    it->second.push_back(&entry);
  }
  return groups;
}

// As the file has it; a part adds its metadata.
TensorToWrite InFile(const StateEntry& entry, std::map<std::string, std::string>& metadata) {
  TensorToWrite one = ToWrite(entry.name, entry.tensor);
  if (!entry.part.has_value()) return one;
  const TensorPart& part = *entry.part;
  one.bytes = one.bytes.substr(0, static_cast<size_t>(part.count) * entry.tensor.element_size());
  if (IsWhole(part)) {
    one.shape = part.shape;
  } else {
    one.shape = {part.count};
    metadata[entry.name] = FormatPart(part);
  }
  return one;
}

absl::StatusOr<ManifestFile> WriteTensors(Fs& fs, const std::string& directory,
                                          const std::string& name,
                                          const std::vector<const StateEntry*>& entries,
                                          const std::function<void()>& after_first_part) {
  std::vector<TensorToWrite> tensors;
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  for (const StateEntry* entry : entries) tensors.push_back(InFile(*entry, metadata));
  OSLER_ASSIGN_OR_RETURN(
      const WrittenFile written,
      WriteSafetensors(
          fs, JoinPath(directory, name), tensors, metadata,
          [&](size_t i) -> absl::StatusOr<std::string_view> { return tensors[i].bytes; },
          after_first_part));
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

std::string CannotSave(int64_t step) { return fmt::format("cannot save checkpoint step-{}", step); }

// The step of a temporary directory, for messages.
int64_t StepOfTemporary(const std::string& path) {
  const std::string name = path.substr(path.find_last_of('/') + 1);
  return StepOfName(std::string_view(name).substr(0, name.find(kTemporary))).value_or(0);
}

}  // namespace

int64_t CheckpointBytes(const CheckpointState& state) {
  int64_t bytes = 0;
  for (const StateEntry& entry : state.tensors) {
    bytes += TensorBytes(DtypeName(entry.tensor.scalar_type()), ShapeOf(entry)).value_or(0);
  }
  for (const auto& [name, text] : state.texts) bytes += static_cast<int64_t>(text.size());
  return bytes;
}

std::string CheckpointStore::TemporaryDirectory(int64_t step, int64_t id) const {
  return fmt::format("{}{}{}", StepDirectory(step), kTemporary, id);
}

absl::Status CheckpointStore::Begin(const std::string& temporary, int64_t bytes) {
  const auto make = [&]() -> absl::Status {
    OSLER_RETURN_IF_ERROR(fs_.RemoveTree(temporary));
    OSLER_RETURN_IF_ERROR(fs_.MakeDirectories(temporary));
    OSLER_RETURN_IF_ERROR(fs_.SyncDirectory(ParentDirectory(directory_)));
    Failpoint("staging");
    // Refuses before a byte is written what cannot fit: the write would fail after filling the
    // disk. Without an answer the write itself will tell.
    const auto free = fs_.FreeBytes(temporary);
    if (!free.ok() || *free >= bytes) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        fmt::format("{} has {} MiB free, the checkpoint needs {} MiB", temporary, *free >> 20,
                    (bytes >> 20) + 1));
  };
  const absl::Status made = make();
  if (!made.ok()) Discard(temporary);
  return AsCheckpointError(made, CannotSave(StepOfTemporary(temporary)));
}

absl::StatusOr<std::vector<ManifestFile>> CheckpointStore::WriteRank(
    const std::string& temporary, RankOf rank, const CheckpointState& state) const {
  OSLER_RETURN_IF_ERROR(CheckTensors(state));
  std::vector<ManifestFile> files;
  bool first = true;
  const auto shard_write = [&] {
    if (std::exchange(first, false)) Failpoint("shard_write");
  };
  for (const auto& [group, entries] : WrittenByGroup(state)) {
    auto written = WriteTensors(fs_, temporary, FileName(group, rank), entries, shard_write);
    if (!written.ok())
      return AsCheckpointError(written.status(), CannotSave(StepOfTemporary(temporary)));
    files.push_back(*std::move(written));
  }
  shard_write();
  return files;
}

absl::Status CheckpointStore::Commit(const std::string& temporary, int64_t step,
                                     std::vector<ManifestFile> files,
                                     const std::map<std::string, std::string>& texts,
                                     std::optional<int64_t> best) {
  OSLER_RETURN_IF_ERROR(CheckTexts(texts));
  Manifest manifest{step, std::move(files)};
  absl::Status status = WriteTexts(temporary, texts, manifest);
  if (status.ok()) status = Publish(temporary, step);
  if (!status.ok()) {
    Discard(temporary);
    return AsCheckpointError(status, CannotSave(step));
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

void CheckpointStore::Discard(const std::string& temporary) {
  fs_.RemoveTree(temporary).IgnoreError();
}

absl::Status CheckpointStore::Save(int64_t step, const CheckpointState& state,
                                   std::optional<int64_t> best) {
  if (step < 0) return Bug("negative step");
  OSLER_RETURN_IF_ERROR(CheckTensors(state));
  OSLER_RETURN_IF_ERROR(CheckTexts(state.texts));
  const std::string temporary = TemporaryDirectory(step, getpid());
  OSLER_RETURN_IF_ERROR(Begin(temporary, CheckpointBytes(state)));
  auto files = WriteRank(temporary, {}, state);
  if (!files.ok()) {
    Discard(temporary);
    return files.status();
  }
  return Commit(temporary, step, *std::move(files), state.texts, best);
}

absl::Status CheckpointStore::WriteTexts(const std::string& temporary,
                                         const std::map<std::string, std::string>& texts,
                                         Manifest& manifest) {
  for (const auto& [name, text] : texts) {
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
  const std::string final = StepDirectory(step), replaced = OwnName(final, kReplaced);
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

}  // namespace osler
