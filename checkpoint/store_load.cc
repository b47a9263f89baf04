#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/dtype.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store.h"
#include "checkpoint/store_internal.h"

namespace osler {
namespace {

constexpr size_t kMostQuarantined = 3;
constexpr char kBad[] = ".bad", kReason[] = ".bad.txt";

// Errors below have no class yet, and their code tells what NewestGood does: kDataLoss is damage,
// kUnimplemented a newer format, anything else a file that could not be read just now.
absl::Status Damage(const std::string& file, const std::string& why) {
  return absl::DataLossError(file + ": " + why);
}

absl::Status CheckPlain(Fs& fs, const std::string& directory, const std::string& name) {
  const std::string path = JoinPath(directory, name);
  if (IsPlainFile(path)) return absl::OkStatus();
  return Damage(name, fs.Exists(path) ? "is a link or no regular file" : "is missing");
}

absl::StatusOr<Manifest> ReadManifest(Fs& fs, const std::string& directory, int64_t step) {
  OSLER_RETURN_IF_ERROR(CheckPlain(fs, directory, kManifestName));
  OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(JoinPath(directory, kManifestName)));
  auto manifest = ParseManifest(text);
  if (!manifest.ok()) return Annotate(manifest.status(), kManifestName);
  if (manifest->step != step)
    return Damage(kManifestName, fmt::format("is of step {}", manifest->step));
  return manifest;
}

// Maps one file of the manifest and checks its size and checksum.
absl::StatusOr<std::shared_ptr<const MappedFile>> MapChecked(Fs& fs, const std::string& directory,
                                                             const ManifestFile& file) {
  OSLER_RETURN_IF_ERROR(CheckPlain(fs, directory, file.name));
  OSLER_ASSIGN_OR_RETURN(auto mapping, fs.Map(JoinPath(directory, file.name)));
  const auto size = static_cast<int64_t>(mapping->data().size());
  if (size != file.size)
    return Damage(file.name, fmt::format("has {} bytes, its manifest says {}", size, file.size));
  if (Crc32c(mapping->data()) != file.crc32c) return Damage(file.name, "checksum mismatch");
  return mapping;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenTensors(
    const ManifestFile& file, std::shared_ptr<const MappedFile> mapping) {
  OSLER_ASSIGN_OR_RETURN(auto tensors, SafetensorsFile::Parse(file.name, std::move(mapping)));
  const auto count = static_cast<int64_t>(tensors->tensors().size());
  if (count == file.tensors) return tensors;
  return Damage(file.name,
                fmt::format("holds {} tensors, its manifest says {}", count, file.tensors));
}

absl::StatusOr<CheckpointReport> VerifyFiles(Fs& fs, const std::string& directory, int64_t step) {
  OSLER_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(fs, directory, step));
  OSLER_ASSIGN_OR_RETURN(const int64_t manifest_size, fs.Size(JoinPath(directory, kManifestName)));
  CheckpointReport report;
  report.step = step;
  report.bytes = manifest_size;
  for (const ManifestFile& file : manifest.files) {
    OSLER_ASSIGN_OR_RETURN(auto mapping, MapChecked(fs, directory, file));
    if (file.tensors >= 0) OSLER_RETURN_IF_ERROR(OpenTensors(file, std::move(mapping)).status());
    report.bytes += file.size;
    report.tensors += std::max<int64_t>(file.tensors, 0);
    report.files.push_back(file.name);
  }
  report.files.push_back(kManifestName);
  return report;
}

std::string Describe(const absl::Status& status, int64_t step) {
  const std::string message(status.message());
  if (status.code() == absl::StatusCode::kDataLoss) {
    return fmt::format("checkpoint step-{} is damaged: {}", step, message);
  }
  return fmt::format("checkpoint step-{} cannot be used: {}", step, message);
}

absl::Status StepError(const absl::Status& status, const std::string& directory, int64_t step) {
  return CheckpointError(directory + ": " + Describe(status, step));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Where each wanted tensor is to come from.
struct Copy {
  const StateEntry* to;
  const SafetensorsFile* from;
};

absl::Status MatchEntry(const StateEntry& entry, const SafetensorsFile& file) {
  const at::Tensor& tensor = entry.tensor;
  const std::string where = fmt::format("{}: tensor {}", file.path(), Printable(entry.name));
  if (!entry.parts.has_value() &&
      (!tensor.defined() || !tensor.device().is_cpu() || !tensor.is_contiguous())) {
    return MakeError(ExitCode::kBug,
                     where + " is loaded into something that is not a contiguous CPU tensor");
  }
  const auto it = file.tensors().find(entry.name);
  if (it == file.tensors().end())
    return CheckpointError(where + ", which this run needs, is not in the checkpoint");
  const TensorToWrite wanted = InFile(entry);
  if (it->second.dtype == wanted.dtype && it->second.shape == wanted.shape) {
    return absl::OkStatus();
  }
  return CheckpointError(fmt::format(
      "{} is {} {}, this run needs {} {}: another model or precision?", where, it->second.dtype,
      ShapeText(it->second.shape), wanted.dtype, ShapeText(wanted.shape)));
}

absl::Status CopyEntry(const StateEntry& entry, const SafetensorsFile& file) {
  if (!entry.parts.has_value()) {
    OSLER_ASSIGN_OR_RETURN(const std::string_view bytes, file.Bytes(entry.name));
    if (!bytes.empty()) {
      std::memcpy(entry.tensor.mutable_data_ptr(), bytes.data(), bytes.size());
    }
    return absl::OkStatus();
  }
  OSLER_ASSIGN_OR_RETURN(const at::Tensor whole, file.Tensor(entry.name));
  return CatchTorch([&] {
    entry.parts->take(whole);
    return absl::OkStatus();
  });
}

// Every entry of this file is there as wanted, and the file has no other tensor.
absl::Status MatchFile(const CheckpointState& state, const std::string& name,
                       const SafetensorsFile& file, std::vector<Copy>& copies) {
  std::set<std::string_view> wanted;
  for (const StateEntry& entry : state.tensors) {
    if (entry.file + kTensorFileSuffix != name) continue;
    if (!wanted.insert(entry.name).second) {
      return MakeError(ExitCode::kBug,
                       "checkpoint state: " + Printable(entry.name) + " twice in " + name);
    }
    OSLER_RETURN_IF_ERROR(MatchEntry(entry, file));
    copies.push_back({&entry, &file});
  }
  for (const auto& [tensor, info] : file.tensors()) {
    if (!wanted.contains(tensor)) {
      return CheckpointError(
          fmt::format("{}: tensor {} is of no use to this run: another model or optimizer?", name,
                      Printable(tensor)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAllListed(const CheckpointState& state, const Manifest& manifest) {
  for (const StateEntry& entry : state.tensors) {
    const std::string name = entry.file + kTensorFileSuffix;
    const bool listed = std::any_of(
        manifest.files.begin(), manifest.files.end(),
        [&](const ManifestFile& file) { return file.name == name && file.tensors >= 0; });
    if (!listed)
      return CheckpointError(
          fmt::format("there is no {} for tensor {}", name, Printable(entry.name)));
  }
  return absl::OkStatus();
}

absl::Status LoadFiles(Fs& fs, const std::string& directory, int64_t step, CheckpointState& state) {
  OSLER_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(fs, directory, step));
  OSLER_RETURN_IF_ERROR(CheckAllListed(state, manifest));
  std::set<std::string> wanted;
  for (const StateEntry& entry : state.tensors) wanted.insert(entry.file + kTensorFileSuffix);
  std::vector<std::shared_ptr<const SafetensorsFile>> open;  // keeps the mappings while copying
  std::vector<Copy> copies;
  std::map<std::string, std::string> texts;
  for (const ManifestFile& file : manifest.files) {
    if (file.tensors >= 0 && !wanted.contains(file.name)) continue;
    OSLER_ASSIGN_OR_RETURN(auto mapping, MapChecked(fs, directory, file));
    if (file.tensors < 0) {
      texts[file.name] = std::string(mapping->data());
      continue;
    }
    OSLER_ASSIGN_OR_RETURN(auto tensors, OpenTensors(file, std::move(mapping)));
    OSLER_RETURN_IF_ERROR(MatchFile(state, file.name, *tensors, copies));
    open.push_back(std::move(tensors));
  }
  for (const Copy& copy : copies) OSLER_RETURN_IF_ERROR(CopyEntry(*copy.to, *copy.from));
  state.texts = std::move(texts);
  return absl::OkStatus();
}

// step-N.bad directories, ascending.
std::vector<int64_t> Quarantined(Fs& fs, const std::string& directory) {
  std::vector<int64_t> steps;
  const auto names = fs.List(directory);
  if (!names.ok()) return steps;
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, kBad)) continue;
    const auto step = StepOfName(std::string_view(name).substr(0, name.size() - std::strlen(kBad)));
    if (step.has_value()) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

absl::StatusOr<CheckpointReport> CheckpointStore::Verify(int64_t step) const {
  auto report = VerifyFiles(fs_, StepDirectory(step), step);
  if (!report.ok()) return StepError(report.status(), directory_, step);
  return report;
}

absl::Status CheckpointStore::Load(int64_t step, CheckpointState& state) const {
  const absl::Status status = LoadFiles(fs_, StepDirectory(step), step, state);
  if (status.ok()) return status;
  if (ExitCodeOf(status) == ExitCode::kBug && status.code() == absl::StatusCode::kInternal)
    return status;
  if (ExitCodeOf(status) == ExitCode::kCheckpoint) return Annotate(status, StepDirectory(step));
  return StepError(status, directory_, step);
}

// Failing to quarantine is no reason to stop: the next start meets the same damage and says so
// again.
void CheckpointStore::Quarantine(int64_t step, const std::string& reason) {
  const std::string path = StepDirectory(step);
  absl::Status status = fs_.RemoveTree(path + kBad);
  status.Update(fs_.Rename(path, path + kBad));
  status.Update(WriteFileDurably(fs_, path + kReason, reason + "\n"));
  const std::vector<int64_t> bad = Quarantined(fs_, directory_);
  for (size_t i = 0; i + kMostQuarantined < bad.size(); ++i) {
    status.Update(fs_.RemoveTree(StepDirectory(bad[i]) + kBad));
    status.Update(fs_.RemoveTree(StepDirectory(bad[i]) + kReason));
  }
  if (!status.ok())
    LogWarning("cannot quarantine step-{}: {}", step, std::string(status.message()));
}

absl::StatusOr<std::optional<int64_t>> CheckpointStore::NewestGood() {
  if (absl::Status status = PutBackReplaced(); !status.ok()) {
    LogWarning("cannot put back a replaced checkpoint: {}", std::string(status.message()));
  }
  OSLER_ASSIGN_OR_RETURN(std::vector<int64_t> steps, Steps());
  std::reverse(steps.begin(), steps.end());
  std::vector<std::string> refused;
  for (const int64_t step : steps) {
    const absl::Status status = VerifyFiles(fs_, StepDirectory(step), step).status();
    if (status.ok()) {
      for (const std::string& reason : refused) LogWarning("{}; using step-{}", reason, step);
      return step;
    }
    if (status.code() == absl::StatusCode::kUnimplemented)
      return StepError(status, directory_, step);
    refused.push_back(Describe(status, step));
    if (status.code() == absl::StatusCode::kDataLoss) Quarantine(step, refused.back());
  }
  if (refused.empty()) {
    for (const int64_t step : Quarantined(fs_, directory_)) {
      refused.push_back(fmt::format("step-{0}.bad was found damaged earlier (step-{0}{1} says why)",
                                    step, kReason));
    }
  }
  if (refused.empty()) return std::nullopt;
  return CheckpointError(fmt::format(
      "{}: no checkpoint is usable: {}; to begin again from step 0, move this directory "
      "away",
      directory_, absl::StrJoin(refused, "; ")));
}

}  // namespace osler
