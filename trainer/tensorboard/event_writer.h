// TensorBoard event files: DIR/events.out.tfevents.SECONDS.HOST.PID, records of protobuf Events in
// TFRecord framing (length, its masked CRC-32C, data, its masked CRC-32C; little endian).
//
// Every start of a run writes a file of its own, named so that it sorts after the earlier ones. It
// begins with a START session at the first step to come: readers then forget what earlier files
// hold of that step and later ones, so that steps repeated after a crash appear once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "trainer/log_file.h"

namespace osler {

// One record in TFRecord framing.
std::string TfRecord(std::string_view data);

// What a full disk refuses is written later (LogFile). Not thread-safe.
class EventWriter {
 public:
  // Creates the directory. `first_step` is the step the run goes on with.
  static absl::StatusOr<std::unique_ptr<EventWriter>> Open(Fs& fs, const std::string& directory,
                                                           int64_t first_step);
  // One record: a point at `step` for every (tag, value); values are stored as float.
  void Scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  // Markdown for the text tab.
  void Text(int64_t step, const std::string& tag, const std::string& markdown);

 private:
  explicit EventWriter(LogFile file) : file_(std::move(file)) {}
  LogFile file_;
};

}  // namespace osler
