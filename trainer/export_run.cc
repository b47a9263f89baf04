#include "trainer/export_run.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "checkpoint/errors.h"
#include "checkpoint/reader.h"
#include "checkpoint/store.h"
#include "configs/config.h"
#include "model/registry.h"

namespace osler {
namespace {

absl::StatusOr<int64_t> BestStep(const CheckpointStore& store) {
  OSLER_ASSIGN_OR_RETURN(const std::optional<int64_t> best, store.Best());
  if (best.has_value()) return *best;
  return CheckpointError(absl::StrCat(store.directory(),
                                      ": no checkpoint is marked as the best; train with "
                                      "checkpoint.keep_best: true"));
}

absl::StatusOr<int64_t> ChooseStep(CheckpointStore& store, const CheckpointChoice& choice) {
  if (!std::holds_alternative<NewestCheckpoint>(choice)) {
    int64_t step = 0;
    if (std::holds_alternative<BestCheckpoint>(choice)) {
      OSLER_ASSIGN_OR_RETURN(step, BestStep(store));
    } else {
      step = std::get<int64_t>(choice);
    }
    OSLER_RETURN_IF_ERROR(store.Verify(step).status());
    return step;
  }
  OSLER_ASSIGN_OR_RETURN(const std::optional<int64_t> newest, store.NewestGood());
  if (!newest.has_value()) {
    return CheckpointError(
        absl::StrCat(store.directory(), ": no checkpoint to export; train first"));
  }
  return *newest;
}

}  // namespace

absl::StatusOr<RunExport> ExportRun(Fs& fs, const std::string& run_directory,
                                    const std::string& output, const CheckpointChoice& choice) {
  const std::string config_path = JoinPath(run_directory, "config.resolved.yaml");
  if (!fs.Exists(config_path)) {
    return ConfigError(
        absl::StrCat(run_directory, " is not a run directory: config.resolved.yaml is missing"));
  }
  OSLER_ASSIGN_OR_RETURN(const config::Train config, LoadTrainConfig(fs, config_path, {}));
  CheckpointStore store(fs, JoinPath(run_directory, "checkpoints"), 0);
  RunExport result;
  OSLER_ASSIGN_OR_RETURN(result.step, ChooseStep(store, choice));
  result.base = config.model().path();
  OSLER_ASSIGN_OR_RETURN(const ModelSpec spec, LoadModelSpec(fs, result.base));
  const std::string directory = store.StepDirectory(result.step);
  auto reader = CheckpointReader::Open(fs, directory, result.step);
  if (!reader.ok()) return AsCheckpointError(reader.status(), directory);

  const auto trained = [&](const std::string& name) -> absl::StatusOr<std::optional<at::Tensor>> {
    const std::optional<std::string> canonical = spec.canonical_name(name);
    if (!canonical.has_value()) return std::nullopt;
    const bool frozen = reader->Find("optimizer", *canonical + ".exp_avg") == nullptr;
    if (frozen) return std::nullopt;
    std::string stored_name = *canonical + ".master";
    const CheckpointReader::Stored* stored = reader->Find("optimizer", stored_name);
    if (stored == nullptr) stored = reader->Find("weights", stored_name = *canonical);
    if (stored == nullptr) return CheckpointError(directory + " has no " + *canonical);
    auto value = reader->Whole(stored_name, *stored);
    if (!value.ok()) return AsCheckpointError(value.status(), directory);
    return *std::move(value);
  };
  OSLER_ASSIGN_OR_RETURN(result.report, ExportWeights(fs, result.base, output, trained));
  return result;
}

}  // namespace osler
