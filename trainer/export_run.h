// A run's newest good weights in the layout of its base model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "checkpoint/export.h"

namespace osler {

struct RunExport {
  int64_t step = 0;
  std::string base;  // the model directory the run started from
  ExportReport report;
};

// Exports step `step` of RUN_DIR, or its newest checkpoint that verifies. Values come from the fp32
// master where one exists, cast to the base's dtype.
absl::StatusOr<RunExport> ExportRun(Fs& fs, const std::string& run_directory,
                                    const std::string& output, std::optional<int64_t> step);

}  // namespace osler
