// Export in the layout of the base model: same files, key order, names, dtypes and side files; trained values inside.
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

struct ExportReport {
  int64_t tensors = 0, trained = 0, copied = 0, bytes = 0;
};

// For each tensor of BASE, `trained` gives its new value (any float dtype; cast to the base's dtype, shape must match) or
// nullopt to copy the base's bytes. Every other file of BASE (config, tokenizer, templates; not weights of other formats)
// is copied byte for byte. The result appears at `output` at once (written beside it, synced, renamed); an existing
// `output` is replaced only if it is an earlier export or empty, else a config error.
absl::StatusOr<ExportReport> ExportWeights(
    Fs& fs, const std::string& base, const std::string& output,
    const std::function<absl::StatusOr<std::optional<at::Tensor>>(const std::string& name)>& trained);

}  // namespace osler
