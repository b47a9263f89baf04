// Export in the layout of the base model: same files, key order, names, dtypes and side files;
// trained values inside. docs/export.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

// The file that marks a directory as an export, so that a later export may replace it.
inline constexpr char kExportMark[] = "osler_export.json";

struct ExportReport {
  int64_t tensors = 0, trained = 0, copied = 0, bytes = 0;  // bytes of tensor data
};

// For each tensor of BASE, `trained` gives its new value (any float dtype; rounded to nearest even
// to the base's dtype, shape must match; a CPU tensor) or nullopt to copy the base's bytes. Every
// other file of BASE (config, tokenizer, templates; not weights of other formats, never a pickle,
// no subdirectories) is copied byte for byte. One converted tensor is in memory at a time. The
// result appears at `output` at once (written beside it, synced, renamed); an existing `output` is
// replaced only if it is an earlier export or empty, else a config error. Errors of the base and of
// `trained` keep their class; a result that cannot be written is of class checkpoint.
absl::StatusOr<ExportReport> ExportWeights(
    Fs& fs, const std::string& base, const std::string& output,
    const std::function<absl::StatusOr<std::optional<at::Tensor>>(const std::string& name)>&
        trained);

}  // namespace osler
