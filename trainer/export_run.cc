#include "trainer/export_run.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store.h"
#include "configs/config.h"
#include "model/registry.h"

namespace osler {
namespace {

using SharedFile = std::shared_ptr<const SafetensorsFile>;

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

absl::StatusOr<SharedFile> OpenTensors(Fs& fs, const std::string& directory,
                                       const std::string& name) {
  auto file = SafetensorsFile::Open(fs, JoinPath(directory, name));
  if (!file.ok()) return Reclassify(file.status(), ExitCode::kCheckpoint);
  return *std::move(file);
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
  OSLER_ASSIGN_OR_RETURN(const SharedFile weights,
                         OpenTensors(fs, directory, "weights.safetensors"));
  OSLER_ASSIGN_OR_RETURN(const SharedFile optimizer,
                         OpenTensors(fs, directory, "optimizer.safetensors"));

  const auto trained = [&](const std::string& name) -> absl::StatusOr<std::optional<at::Tensor>> {
    const std::optional<std::string> canonical = spec.canonical_name(name);
    if (!canonical.has_value()) return std::nullopt;
    const bool frozen = !optimizer->tensors().contains(*canonical + ".exp_avg");
    if (frozen) return std::nullopt;
    const std::string master = *canonical + ".master";
    const bool has_master = optimizer->tensors().contains(master);
    auto value = has_master ? optimizer->Tensor(master) : weights->Tensor(*canonical);
    if (!value.ok()) return Reclassify(value.status(), ExitCode::kCheckpoint);
    return *std::move(value);
  };
  OSLER_ASSIGN_OR_RETURN(result.report, ExportWeights(fs, result.base, output, trained));
  return result;
}

}  // namespace osler
