// What a run tells those who watch it, under RUN_DIR/log: metrics.jsonl and TensorBoard's events.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "configs/schema/train.pb.h"
#include "trainer/metrics.h"
#include "trainer/tensorboard/event_writer.h"

namespace osler {

// Of the first rank. Not thread-safe.
class RunLog {
 public:
  // A run that goes on after `step`: what is told of later steps is forgotten. Events that cannot
  // be opened are a warning.
  static absl::StatusOr<std::unique_ptr<RunLog>> Open(Fs& fs, const config::Train& config,
                                                      int64_t step);
  void Append(const StepReport& report);
  // Makes the metrics durable.
  absl::Status Sync() { return metrics_->Sync(); }

 private:
  RunLog(std::unique_ptr<MetricsLog> metrics, std::unique_ptr<EventWriter> events)
      : metrics_(std::move(metrics)), events_(std::move(events)) {}

  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<EventWriter> events_;  // null without train.tensorboard
};

}  // namespace osler
