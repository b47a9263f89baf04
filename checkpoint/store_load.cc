#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/errors.h"
#include "checkpoint/manifest.h"
#include "checkpoint/reader.h"
#include "checkpoint/store.h"
#include "checkpoint/store_internal.h"

namespace osler {
namespace {

constexpr size_t kMostQuarantined = 3;
constexpr char kBad[] = ".bad", kReason[] = ".bad.txt";

absl::StatusOr<CheckpointReport> VerifyFiles(Fs& fs, const std::string& directory, int64_t step) {
  OSLER_ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(fs, directory, step));
  OSLER_ASSIGN_OR_RETURN(const int64_t manifest_size, fs.Size(JoinPath(directory, kManifestName)));
  CheckpointReport report;
  report.step = step;
  report.bytes = manifest_size;
  const std::vector<ManifestFile>& files = reader.manifest().files;
  for (size_t i = 0; i < files.size(); ++i) {
    OSLER_RETURN_IF_ERROR(reader.Bytes(i).status());
    report.bytes += files[i].size;
    report.files.push_back(files[i].name);
  }
  for (const auto& [group, tensors] : reader.groups())
    report.tensors += static_cast<int64_t>(tensors.size());
  report.files.push_back(kManifestName);
  return report;
}

// `status`: a reader's.
absl::Status StepError(const absl::Status& status, const std::string& directory, int64_t step) {
  return AsCheckpointError(status,
                           fmt::format("{}: checkpoint step-{} {}", directory, step,
                                       absl::IsDataLoss(status) ? "is damaged" : "cannot be used"));
}

// Whether an older checkpoint may do.
bool OnlyThisOne(const absl::Status& status) {
  return ExitCodeOf(status) == ExitCode::kCheckpoint && !absl::IsUnimplemented(status) &&
         !absl::IsFailedPrecondition(status);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// An entry and the tensor of the checkpoint that it is to come from.
struct Copy {
  const StateEntry* to;
  const CheckpointReader::Stored* from;
};

absl::Status MatchEntry(const StateEntry& entry, const CheckpointReader::Stored* stored) {
  const std::string where = fmt::format("{}: tensor {}", entry.group, Printable(entry.name));
  if (!entry.tensor.defined() || !entry.tensor.device().is_cpu() || !entry.tensor.is_contiguous() ||
      (entry.part.has_value() && entry.part->count > entry.tensor.numel())) {
    return MakeError(ExitCode::kBug,
                     where + " is loaded into something that is not a contiguous CPU tensor");
  }
  if (stored == nullptr)
    return CheckpointError(where + ", which this run needs, is not in the checkpoint");
  const std::string dtype = DtypeName(entry.tensor.scalar_type());
  const std::vector<int64_t> shape = ShapeOf(entry);
  if (stored->dtype == dtype && stored->shape == shape) return absl::OkStatus();
  return CheckpointError(
      fmt::format("{} is {} {}, this run needs {} {}: another model or precision?", where,
                  stored->dtype, ShapeText(stored->shape), dtype, ShapeText(shape)));
}

// Every entry is there as wanted, and their groups have no other tensor.
absl::StatusOr<std::vector<Copy>> Match(const CheckpointState& state,
                                        const CheckpointReader& reader) {
  std::vector<Copy> copies;
  std::map<std::string, std::set<std::string_view>> wanted;
  for (const StateEntry& entry : state.tensors) {
    if (!wanted[entry.group].insert(entry.name).second) {
      return MakeError(ExitCode::kBug,
                       "checkpoint state: " + Printable(entry.name) + " twice in " + entry.group);
    }
    if (!reader.groups().contains(entry.group)) {
      return CheckpointError(fmt::format("there is no {}{} for tensor {}", entry.group,
                                         kTensorFileSuffix, Printable(entry.name)));
    }
    copies.push_back({&entry, reader.Find(entry.group, entry.name)});
    OSLER_RETURN_IF_ERROR(MatchEntry(entry, copies.back().from));
  }
  for (const auto& [group, names] : wanted) {
    for (const auto& [name, stored] : reader.groups().at(group)) {
      if (names.contains(name)) continue;
      return CheckpointError(
          fmt::format("{}: tensor {} is of no use to this run: another model or optimizer?", group,
                      Printable(name)));
    }
  }
  return copies;
}

absl::Status LoadFiles(Fs& fs, const std::string& directory, int64_t step, CheckpointState& state) {
  std::set<std::string> groups;
  for (const StateEntry& entry : state.tensors) groups.insert(entry.group);
  OSLER_ASSIGN_OR_RETURN(CheckpointReader reader,
                         CheckpointReader::Open(fs, directory, step, groups));
  const auto copies = Match(state, reader);
  if (!copies.ok()) {
    OSLER_RETURN_IF_ERROR(reader.CheckOpened());
    return copies.status();
  }
  OSLER_ASSIGN_OR_RETURN(auto texts, reader.Texts());
  for (const Copy& copy : *copies) {
    OSLER_RETURN_IF_ERROR(reader.Check(*copy.from, PartOf(*copy.to)));
  }
  for (const Copy& copy : *copies) {
    OSLER_RETURN_IF_ERROR(reader.Read(copy.to->name, *copy.from, PartOf(*copy.to),
                                      static_cast<char*>(copy.to->tensor.mutable_data_ptr())));
  }
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
  if (ExitCodeOf(status) == ExitCode::kBug && absl::IsInternal(status)) return status;
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
  return NewestGood([&](int64_t step) { return Verify(step).status(); });
}

absl::StatusOr<std::optional<int64_t>> CheckpointStore::NewestGood(
    absl::FunctionRef<absl::Status(int64_t step)> use) {
  if (absl::Status status = PutBackReplaced(); !status.ok()) {
    LogWarning("cannot put back a replaced checkpoint: {}", std::string(status.message()));
  }
  OSLER_ASSIGN_OR_RETURN(std::vector<int64_t> steps, Steps());
  std::reverse(steps.begin(), steps.end());
  std::vector<std::string> refused;
  for (const int64_t step : steps) {
    const absl::Status status = use(step);
    if (status.ok()) {
      for (const std::string& reason : refused) LogWarning("{}; using step-{}", reason, step);
      return step;
    }
    if (!OnlyThisOne(status)) return status;
    refused.emplace_back(status.message());
    if (absl::IsDataLoss(status)) Quarantine(step, refused.back());
  }
  if (refused.empty()) {
    for (const int64_t step : Quarantined(fs_, directory_)) {
      refused.push_back(fmt::format("step-{0}.bad was found damaged earlier (step-{0}{1} says why)",
                                    step, kReason));
    }
  }
  if (refused.empty()) return std::nullopt;
  return CheckpointError(
      fmt::format("no checkpoint is usable: {}; to begin again from step 0, move {} away",
                  absl::StrJoin(refused, "; "), directory_));
}

}  // namespace osler
