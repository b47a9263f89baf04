// log/metrics.jsonl: one JSON object a step, appended as the step ends. docs/metrics.md lists the
// keys.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "trainer/log_file.h"
#include "trainer/validation.h"

namespace osler {

struct StepReport {
  int64_t step = 0;                       // from 1
  double loss = 0;                        // per target token of the global batch
  double grad_norm = 0;                   // before clipping
  double lr = 0;                          // of the schedule
  std::vector<double> group_lr;           // of each item of optimizer.groups
  int64_t tokens = 0, target_tokens = 0;  // of the global batch
  double tokens_per_s = 0;                // all ranks together
  double model_tflops = 0;        // a second and rank: the model's work, not what was computed
  std::optional<double> mfu;      // that as a share of the device's peak, where it is known
  int64_t device_memory_mib = 0;  // the most that tensors took on rank 0's device; 0: CPU
  double data_wait_ms = 0;        // this rank waited for packs
  double data_wait_share = 0;     // of the step's wall time
  double padding_share = 0;       // of global_batch × sequence_length, without a token
  double eta_s = 0;               // to the last step, at the pace since this start
  double blocked_ms = 0;          // checkpoints kept training waiting since the previous line
  int64_t first_pack = 0, end_pack = 0;  // global pack numbers [first, end)
  int64_t memory_mib = 0;                // peak resident set of rank 0
  std::optional<ValidationLoss> validation;
};

// The numbers of a report that make curves, by the names they have in TensorBoard.
std::vector<std::pair<std::string, double>> Curves(const StepReport& report);

std::string ToJsonLine(const StepReport& report);  // floats round-trip; ends with a newline

// Appends to PATH; a full disk never ends a run. Not thread-safe.
class MetricsLog {
 public:
  // Creates the directory; drops a torn last line and every line of a step > `resume_step`.
  static absl::StatusOr<std::unique_ptr<MetricsLog>> Open(Fs& fs, const std::string& path,
                                                          int64_t resume_step);
  void Append(const StepReport& report) { file_.Append(ToJsonLine(report)); }
  // Makes all lines durable.
  absl::Status Sync() { return file_.Sync(); }

 private:
  explicit MetricsLog(LogFile file) : file_(std::move(file)) {}
  LogFile file_;
};

// Peak resident set of this process in MiB.
int64_t PeakMemoryMib();

}  // namespace osler
