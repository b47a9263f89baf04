#include "trainer/run_log.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "configs/config.h"

namespace osler {
namespace {

// TensorBoard is a convenience: training goes on without it.
std::unique_ptr<EventWriter> OpenEvents(Fs& fs, const config::Train& config, int64_t step) {
  if (!config.train().tensorboard()) return nullptr;
  auto opened =
      EventWriter::Open(fs, JoinPath(config.train().output(), "log/tensorboard"), step + 1);
  if (!opened.ok()) {
    LogWarning("no TensorBoard events: {}", std::string(opened.status().message()));
    return nullptr;
  }
  (*opened)->Text(step, "config", absl::StrCat("```\n", ToYaml(config), "```\n"));
  return *std::move(opened);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunLog>> RunLog::Open(Fs& fs, const config::Train& config,
                                                     int64_t step) {
  OSLER_ASSIGN_OR_RETURN(
      auto metrics,
      MetricsLog::Open(fs, JoinPath(config.train().output(), "log/metrics.jsonl"), step));
  return std::unique_ptr<RunLog>(new RunLog(std::move(metrics), OpenEvents(fs, config, step)));
}

void RunLog::Append(const StepReport& report) {
  metrics_->Append(report);
  if (events_ != nullptr) events_->Scalars(report.step, Curves(report));
}

}  // namespace osler
