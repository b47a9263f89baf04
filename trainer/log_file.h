// A log that grows by whole records and never ends a run: what a full disk refuses waits in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

// Not thread-safe.
class LogFile {
 public:
  // Opens PATH for appending after its first `size` bytes; what follows them is cut off. Creates
  // the file and its directory when they are missing.
  static absl::StatusOr<LogFile> Open(Fs& fs, const std::string& path, int64_t size);

  // Writes the record at once. When that fails it waits for the next Append or Sync, with a warning
  // at the first of several failures; a torn record is cut off again.
  void Append(std::string_view record);
  // Makes all records durable.
  absl::Status Sync();

 private:
  LogFile(Fs& fs, std::string path, std::unique_ptr<WritableFile> file, int64_t size)
      : fs_(&fs), path_(std::move(path)), file_(std::move(file)), size_(size) {}
  absl::Status Flush();

  Fs* fs_;
  std::string path_;
  std::unique_ptr<WritableFile> file_;
  int64_t size_;         // of the whole records on disk
  std::string pending_;  // records that could not be written yet
  bool failing_ = false;
};

}  // namespace osler
