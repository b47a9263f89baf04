#include "checkpoint/export.h"

#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "checkpoint/dtype.h"
#include "checkpoint/errors.h"
#include "checkpoint/export_files.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/store_internal.h"
#include "checkpoint/weights.h"

namespace osler {
namespace {

using Trained = std::function<absl::StatusOr<std::optional<at::Tensor>>(const std::string& name)>;

// Gives the bytes of one tensor after another, each valid until the next is asked for.
class TensorSource {
 public:
  TensorSource(const SafetensorsFile& base, const Trained& trained, ExportReport& report)
      : base_(base), trained_(trained), report_(report) {}

  absl::StatusOr<std::string_view> Bytes(const std::string& name) {
    held_.reset();
    OSLER_ASSIGN_OR_RETURN(const std::string_view old, base_.Bytes(name));
    OSLER_ASSIGN_OR_RETURN(const std::optional<at::Tensor> value, trained_(name));
    ++report_.tensors;
    ++(value.has_value() ? report_.trained : report_.copied);
    report_.bytes += static_cast<int64_t>(old.size());
    if (!value.has_value()) return old;
    OSLER_RETURN_IF_ERROR(Convert(name, *value));
    return std::string_view(static_cast<const char*>(held_.const_data_ptr()), held_.nbytes());
  }

 private:
  absl::Status Convert(const std::string& name, const at::Tensor& value) {
    const TensorInfo& info = base_.tensors().at(name);
    const std::string where = fmt::format("{}: tensor {}", base_.path(), Printable(name));
    const auto type = ScalarTypeOf(info.dtype);
    if (!type.ok() || !c10::isFloatingType(*type)) {
      return ConfigError(
          fmt::format("{} is {}: trained values cannot be stored in it", where, info.dtype));
    }
    return CatchTorch([&]() -> absl::Status {
      if (value.sizes() != at::IntArrayRef(info.shape)) {
        return ConfigError(fmt::format(
            "{} has shape [{}], its trained value has [{}]: the run trained another model", where,
            fmt::join(info.shape, ", "), fmt::join(value.sizes().vec(), ", ")));
      }
      held_ = value.detach().to(*type).contiguous();
      // float16 ends at 65504: a larger weight would become infinite without a word.
      if (*type == at::kHalf && !at::isfinite(held_).all().item<bool>() &&
          at::isfinite(value).all().item<bool>()) {
        return ConfigError(where + " is F16, and a trained value is too large for it");
      }
      return absl::OkStatus();
    });
  }

  const SafetensorsFile& base_;
  const Trained& trained_;
  ExportReport& report_;
  at::Tensor held_;
};

std::string FileName(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

absl::Status WriteShard(Fs& fs, const SafetensorsFile& base, const std::string& directory,
                        const Trained& trained, ExportReport& report) {
  std::vector<TensorToWrite> tensors;
  for (const std::string& name : NamesInFileOrder(base)) {
    const TensorInfo& info = base.tensors().at(name);
    tensors.push_back({name, info.dtype, info.shape, {}});
  }
  TensorSource source(base, trained, report);
  return WriteSafetensors(
             fs, JoinPath(directory, FileName(base.path())), tensors, base.metadata(),
             [&](size_t i) { return source.Bytes(tensors[i].name); }, nullptr)
      .status();
}

absl::Status WriteMark(Fs& fs, const std::string& directory, const ExportReport& report) {
  const nlohmann::ordered_json mark = {
      {"format", 1}, {"tensors", report.tensors}, {"trained", report.trained}};
  return WriteFileDurably(fs, JoinPath(directory, kExportMark), mark.dump() + "\n");
}

// `output` is free, empty or an earlier export, and its replacement cannot take the base with it.
absl::Status CheckOutput(Fs& fs, const std::string& base, const std::string& output) {
  const std::string home = CanonicalPath(base);
  if (absl::StartsWith(home + "/", output + "/")) {
    return ConfigError(
        fmt::format("cannot export to {}: the base model {} is there", output, base));
  }
  if (!fs.Exists(output)) return absl::OkStatus();
  if (!fs.IsDirectory(output))
    return ConfigError(fmt::format("cannot export to {}: it is a file", output));
  const auto names = fs.List(output);
  if (!names.ok()) return Reclassify(names.status(), ExitCode::kConfig);
  if (names->empty() || IsPlainFile(JoinPath(output, kExportMark))) return absl::OkStatus();
  return ConfigError(fmt::format(
      "cannot export to {}: it exists and is not an earlier export (it has no {}); choose "
      "another directory",
      output, kExportMark));
}

absl::Status WriteAll(Fs& fs, const WeightDirectory& weights, const std::string& base,
                      const std::string& temporary, const Trained& trained, ExportReport& report) {
  OSLER_RETURN_IF_ERROR(fs.RemoveTree(temporary));
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(temporary));
  for (const auto& file : weights.files()) {
    OSLER_RETURN_IF_ERROR(WriteShard(fs, *file, temporary, trained, report));
  }
  OSLER_RETURN_IF_ERROR(CopySideFiles(fs, base, temporary, weights.index_file()));
  OSLER_RETURN_IF_ERROR(WriteMark(fs, temporary, report));
  return fs.SyncDirectory(temporary);
}

absl::Status Publish(Fs& fs, const std::string& temporary, const std::string& output,
                     const std::string& replaced) {
  const bool replace = fs.Exists(output);
  if (replace) {
    OSLER_RETURN_IF_ERROR(fs.RemoveTree(replaced));
    OSLER_RETURN_IF_ERROR(fs.Rename(output, replaced));
  }
  if (absl::Status status = fs.Rename(temporary, output); !status.ok()) {
    if (replace) status.Update(fs.Rename(replaced, output));
    return status;
  }
  OSLER_RETURN_IF_ERROR(fs.SyncDirectory(ParentDirectory(output)));
  return fs.RemoveTree(replaced);
}

}  // namespace

absl::StatusOr<ExportReport> ExportWeights(Fs& fs, const std::string& base,
                                           const std::string& output, const Trained& trained) {
  OSLER_ASSIGN_OR_RETURN(const auto weights, WeightDirectory::Open(fs, base));
  const std::string final = CanonicalPath(output), temporary = final + ".osler-tmp",
                    replaced = final + ".osler-old";
  if (!fs.Exists(final) &&
      fs.Exists(replaced)) {  // an earlier export died while it replaced this one
    if (absl::Status status = fs.Rename(replaced, final); !status.ok()) {
      return Reclassify(status, ExitCode::kCheckpoint);
    }
  }
  OSLER_RETURN_IF_ERROR(CheckOutput(fs, base, final));
  ExportReport report;
  absl::Status status = WriteAll(fs, *weights, base, temporary, trained, report);
  if (status.ok()) status = Publish(fs, temporary, final, replaced);
  if (status.ok()) return report;
  fs.RemoveTree(temporary).IgnoreError();
  if (ExitCodeOf(status) != ExitCode::kBug || status.code() == absl::StatusCode::kInternal)
    return status;
  return AsCheckpointError(status, "cannot export to " + final);
}

}  // namespace osler
