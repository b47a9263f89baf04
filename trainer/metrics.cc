#include "trainer/metrics.h"

#include <sys/resource.h>

#include <nlohmann/json.hpp>
#include <string_view>

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

std::vector<std::pair<std::string, double>> Curves(const StepReport& report) {
  std::vector<std::pair<std::string, double>> curves = {
      {"loss", report.loss},
      {"grad_norm", report.grad_norm},
      {"lr", report.lr},
      {"tokens_per_s", report.tokens_per_s},
      {"model_tflops", report.model_tflops},
      {"data_wait_share", report.data_wait_share},
      {"padding_share", report.padding_share},
      {"memory_mib", static_cast<double>(report.memory_mib)},
  };
  for (size_t i = 0; i < report.group_lr.size(); ++i) {
    curves.emplace_back("group_lr/" + std::to_string(i), report.group_lr[i]);
  }
  if (report.mfu.has_value()) curves.emplace_back("mfu", *report.mfu);
  if (report.device_memory_mib > 0)
    curves.emplace_back("device_memory_mib", static_cast<double>(report.device_memory_mib));
  if (!report.validation.has_value()) return curves;
  curves.emplace_back("validation_loss", report.validation->total);
  for (const auto& [name, loss] : report.validation->sources) {
    curves.emplace_back("validation_losses/" + name, loss);
  }
  return curves;
}

std::string ToJsonLine(const StepReport& report) {
  nlohmann::ordered_json line = {
      {"step", report.step},
      {"loss", report.loss},
      {"grad_norm", report.grad_norm},
      {"lr", report.lr},
      {"tokens", report.tokens},
      {"target_tokens", report.target_tokens},
      {"padding_share", report.padding_share},
      {"tokens_per_s", report.tokens_per_s},
      {"model_tflops", report.model_tflops},
      {"data_wait_ms", report.data_wait_ms},
      {"data_wait_share", report.data_wait_share},
      {"blocked_ms", report.blocked_ms},
      {"eta_s", report.eta_s},
      {"packs", {report.first_pack, report.end_pack}},
      {"memory_mib", report.memory_mib},
  };
  if (report.mfu.has_value()) line["mfu"] = *report.mfu;
  if (report.device_memory_mib > 0) line["device_memory_mib"] = report.device_memory_mib;
  if (!report.group_lr.empty()) line["group_lr"] = report.group_lr;
  if (report.validation.has_value()) {
    line["validation_loss"] = report.validation->total;
    for (const auto& [name, loss] : report.validation->sources) {
      line["validation_losses"][name] = loss;
    }
  }
  return line.dump() + "\n";
}

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Open(Fs& fs, const std::string& path,
                                                             int64_t resume_step) {
  int64_t size = 0;
  if (fs.Exists(path)) {
    OSLER_ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path));
    size = static_cast<int64_t>(KeptLines(text, resume_step).size());
  }
  OSLER_ASSIGN_OR_RETURN(LogFile file, LogFile::Open(fs, path, size));
  return std::unique_ptr<MetricsLog>(new MetricsLog(std::move(file)));
}

int64_t PeakMemoryMib() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

}  // namespace osler
