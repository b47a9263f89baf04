#include "trainer/run_state.h"

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "checkpoint/weights.h"

namespace osler {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kLockPatience{5};

std::string SettingsOf(const config::Train& c) {
  const config::TrainLoop& t = c.train();
  const config::Data& d = c.data();
  return json{
      {"train.seed", t.seed()},
      {"train.global_batch", t.global_batch()},
      {"train.precision", config::Precision_Name(t.precision())},
      {"train.freeze", std::vector<std::string>(t.freeze().begin(), t.freeze().end())},
      {"train.train_only", std::vector<std::string>(t.train_only().begin(), t.train_only().end())},
      {"data.sequence_length", d.sequence_length()},
      {"data.packing", d.packing()},
      {"data.shuffle", d.shuffle()},
      {"data.long_records", config::LongRecords_Name(d.long_records())},
      {"data.target", config::Target_Name(d.target())},
      {"data.template", d.template_()},
      {"data.template_date", d.template_date()}}
      .dump();
}

absl::StatusOr<std::string> ModelDigest(Fs& fs, const std::string& directory) {
  OSLER_ASSIGN_OR_RETURN(const std::string config, fs.ReadFile(JoinPath(directory, "config.json")));
  OSLER_ASSIGN_OR_RETURN(const auto weights, WeightDirectory::Open(fs, directory));
  Sha256 digest;
  digest.Update(config);
  for (const std::string& name : weights->names()) {
    const TensorInfo& info = weights->info(name);
    digest.Update(absl::StrCat(name, " ", info.dtype, " ", info.begin, " ", info.end, "\n"));
  }
  return digest.Hex();
}

// Names the first thing in which two identities differ, or "".
std::string Difference(const json& stored, const RunIdentity& identity) {
  if (stored.value("model", "") != identity.model) return "model.path holds another model";
  if (stored.value("data", "") != identity.data) return "data.train holds other data or weights";
  // Runs of earlier versions do not tell.
  if (stored.value("records", identity.records) != identity.records)
    return "model.path holds another tokenizer or chat template";
  const json now = json::parse(identity.settings);
  const json then = json::parse(stored.value("settings", "{}"), nullptr, false);
  for (const auto& [key, value] : now.items()) {
    const json before = then.is_object() && then.contains(key) ? then[key] : json();
    if (before != value)
      return absl::StrCat(key, " was ", before.dump(), " and is now ", value.dump());
  }
  return "";
}

json OrNull(const std::optional<double>& value) {
  return value.has_value() ? json(*value) : json();
}

json ToJson(const BestLossState& best) {
  return {{"loss", OrNull(best.loss)},
          {"step", best.step},
          {"reference", OrNull(best.reference)},
          {"stale_rounds", best.stale_rounds}};
}

std::optional<double> NumberAt(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

int64_t IntAt(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

BestLossState BestLossFromJson(const json& best) {
  return {NumberAt(best, "loss"), IntAt(best, "step"), NumberAt(best, "reference"),
          IntAt(best, "stale_rounds")};
}

json ToJson(const RunIdentity& identity) {
  return {{"model", identity.model},
          {"data", identity.data},
          {"records", identity.records},
          {"settings", identity.settings}};
}

absl::Status CheckIdentity(const json& stored, const RunIdentity& identity,
                           const std::string& where) {
  const std::string difference = Difference(stored, identity);
  if (difference.empty()) return absl::OkStatus();
  return CheckpointError(
      absl::StrCat(where, " belongs to another run: ", difference,
                   "; choose another train.output, or undo the change to continue it"));
}

}  // namespace

absl::StatusOr<RunIdentity> MakeRunIdentity(Fs& fs, const config::Train& config,
                                            const std::string& data_digest,
                                            const std::string& records_digest) {
  OSLER_ASSIGN_OR_RETURN(std::string model, ModelDigest(fs, config.model().path()));
  return RunIdentity{std::move(model), data_digest, records_digest, SettingsOf(config)};
}

std::string ProgressToJson(const RunProgress& progress, const RunIdentity& identity) {
  return json{{"format", 1},
              {"step", progress.step},
              {"cursor", progress.cursor.Serialize()},
              {"best", ToJson(progress.best)},
              {"validation", progress.validation},
              {"run", ToJson(identity)}}
             .dump(2) +
         "\n";
}

absl::StatusOr<RunProgress> ProgressFromJson(const std::string& text, const RunIdentity& identity,
                                             const std::string& where) {
  const json state = json::parse(text, nullptr, false);
  if (!state.is_object() || !state.contains("step") || !state["step"].is_number_integer() ||
      !state.contains("cursor") || !state["cursor"].is_string() || !state.contains("run")) {
    return CheckpointError(absl::StrCat(where, ": not a state.json of this version"));
  }
  OSLER_RETURN_IF_ERROR(CheckIdentity(state["run"], identity, where));
  RunProgress progress;
  progress.step = state["step"].get<int64_t>();
  auto cursor = Cursor::Parse(state["cursor"].get<std::string>());
  if (!cursor.ok()) return Annotate(Reclassify(cursor.status(), ExitCode::kCheckpoint), where);
  progress.cursor = *std::move(cursor);
  if (state.contains("best") && state["best"].is_object()) {
    progress.best = BestLossFromJson(state["best"]);
  }
  if (state.contains("validation") && state["validation"].is_string()) {
    progress.validation = state["validation"].get<std::string>();
  }
  return progress;
}

absl::Status ClaimRunDirectory(Fs& fs, const std::string& run_directory,
                               const RunIdentity& identity) {
  const std::string path = JoinPath(run_directory, "run.json");
  if (fs.Exists(path)) {
    OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path));
    const json stored = json::parse(text, nullptr, false);
    if (stored.is_object()) return CheckIdentity(stored, identity, run_directory);
  }
  if (absl::Status made = fs.MakeDirectories(run_directory); !made.ok()) {
    return Annotate(Reclassify(made, ExitCode::kCheckpoint), "train.output");
  }
  return Reclassify(WriteFileDurably(fs, path, ToJson(identity).dump(2) + "\n"),
                    ExitCode::kCheckpoint);
}

absl::StatusOr<FileLock> LockRunDirectory(const std::string& run_directory) {
  auto lock = FileLock::Take(JoinPath(run_directory, "run.lock"), kLockPatience);
  if (lock.ok()) return lock;
  if (!absl::IsUnavailable(lock.status())) return Reclassify(lock.status(), ExitCode::kCheckpoint);
  return CheckpointError(absl::StrCat(run_directory, " is in use by another run (",
                                      std::string(lock.status().message()),
                                      "): wait for it, stop it, or choose another train.output"));
}

}  // namespace osler
