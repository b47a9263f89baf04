#include "trainer/metrics.h"

#include <sys/resource.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/log.h"
#include "base/status_macros.h"

namespace osler {
namespace {

// The longest prefix of whole lines that are JSON objects of steps ≤ last.
std::string_view KeptLines(std::string_view text, int64_t last) {
  size_t kept = 0;
  while (true) {
    const size_t end = text.find('\n', kept);
    if (end == std::string_view::npos) return text.substr(0, kept);
    const auto line = nlohmann::json::parse(text.substr(kept, end - kept), nullptr, false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer() ||
        line["step"].get<int64_t>() > last) {
      return text.substr(0, kept);
    }
    kept = end + 1;
  }
}

}  // namespace

std::string ToJsonLine(const StepReport& report) {
  nlohmann::ordered_json line = {
      {"step", report.step},
      {"loss", report.loss},
      {"grad_norm", report.grad_norm},
      {"lr", report.lr},
      {"tokens", report.tokens},
      {"target_tokens", report.target_tokens},
      {"tokens_per_s", report.tokens_per_s},
      {"data_wait_ms", report.data_wait_ms},
      {"blocked_ms", report.blocked_ms},
      {"packs", {report.first_pack, report.end_pack}},
      {"memory_mib", report.memory_mib},
  };
  if (report.validation_loss.has_value()) line["validation_loss"] = *report.validation_loss;
  return line.dump() + "\n";
}

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(Fs& fs, const std::string& path,
                                                             int64_t resume_step) {
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(ParentDirectory(path)));
  int64_t size = 0;
  if (fs.Exists(path)) {
    OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path));
    size = static_cast<int64_t>(KeptLines(text, resume_step).size());
    if (size < static_cast<int64_t>(text.size())) OSLER_RETURN_IF_ERROR(fs.Truncate(path, size));
  }
  OSLER_ASSIGN_OR_RETURN(auto file, fs.Open(path, OpenMode::kAppend));
  return std::unique_ptr<MetricsLog>(new MetricsLog(fs, path, std::move(file), size));
}

absl::Status MetricsLog::Flush() {
  if (pending_.empty()) return absl::OkStatus();
  if (absl::Status written = file_->Append(pending_); !written.ok()) {
    const absl::Status repaired = fs_.Truncate(path_, size_);  // no torn line before the retry
    return repaired.ok() ? written : repaired;
  }
  size_ += static_cast<int64_t>(pending_.size());
  pending_.clear();
  return absl::OkStatus();
}

void MetricsLog::Append(const StepReport& report) {
  pending_ += ToJsonLine(report);
  if (const absl::Status flushed = Flush(); !flushed.ok()) {
    LogWarning("metrics of step {} are held back: {}", report.step, std::string(flushed.message()));
  }
}

absl::Status MetricsLog::Sync() {
  OSLER_RETURN_IF_ERROR(Flush());
  return file_->Sync();
}

int64_t PeakMemoryMib() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

}  // namespace osler
