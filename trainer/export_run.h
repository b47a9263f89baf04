// A run's newest good weights in the layout of its base model.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "checkpoint/export.h"

namespace osler {

struct RunExport {
  int64_t step = 0;
  std::string base;  // the model directory the run started from
  ExportReport report;
};

// Which checkpoint of a run.
struct BestCheckpoint {};    // of the lowest validation loss
struct NewestCheckpoint {};  // the newest that verifies
using CheckpointChoice = std::variant<NewestCheckpoint, BestCheckpoint, int64_t>;  // or a step

// Exports one checkpoint of RUN_DIR. Values come from the fp32 master where one exists, cast to the
// base's dtype; parameters that the run did not train keep the base's bytes.
absl::StatusOr<RunExport> ExportRun(Fs& fs, const std::string& run_directory,
                                    const std::string& output, const CheckpointChoice& choice);

}  // namespace osler
