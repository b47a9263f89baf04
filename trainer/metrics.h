// log/metrics.jsonl: one JSON object a step, appended as the step ends. docs/metrics.md lists the
// keys.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

struct StepReport {
  int64_t step = 0;                       // from 1
  double loss = 0;                        // per target token of the global batch
  double grad_norm = 0;                   // before clipping
  double lr = 0;                          // as applied
  int64_t tokens = 0, target_tokens = 0;  // of the global batch
  double tokens_per_s = 0;                // all ranks together
  double data_wait_ms = 0;                // this rank waited for packs
  double blocked_ms = 0;  // checkpoints kept training waiting since the previous line
  int64_t first_pack = 0, end_pack = 0;  // global pack numbers [first, end)
  int64_t memory_mib = 0;                // peak resident set of rank 0
  std::optional<double> validation_loss;
};

std::string ToJsonLine(const StepReport& report);  // floats round-trip; ends with a newline

// Appends to PATH. Not thread-safe.
class MetricsLog {
 public:
  // Creates the directory; drops a torn last line and every line of a step > `resume_step`.
  static absl::StatusOr<std::unique_ptr<MetricsLog>> Open(Fs& fs, const std::string& path,
                                                          int64_t resume_step);
  // Writes the line at once. When that fails (a full disk) the line waits for the next Append or
  // Sync, with a warning: metrics never end a run.
  void Append(const StepReport& report);
  // Makes all lines durable.
  absl::Status Sync();

 private:
  MetricsLog(Fs& fs, std::string path, std::unique_ptr<WritableFile> file, int64_t size)
      : fs_(fs), path_(std::move(path)), file_(std::move(file)), size_(size) {}
  absl::Status Flush();

  Fs& fs_;
  std::string path_;
  std::unique_ptr<WritableFile> file_;
  int64_t size_;         // of the whole lines on disk
  std::string pending_;  // lines that could not be written yet
};

// Peak resident set of this process in MiB.
int64_t PeakMemoryMib();

}  // namespace osler
