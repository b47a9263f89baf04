#include "trainer/log_file.h"

#include "base/log.h"
#include "base/status_macros.h"

namespace osler {

absl::StatusOr<LogFile> LogFile::Open(Fs& fs, const std::string& path, int64_t size) {
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(ParentDirectory(path)));
  if (fs.Exists(path)) {
    OSLER_ASSIGN_OR_RETURN(const int64_t found, fs.Size(path));
    if (size < found) OSLER_RETURN_IF_ERROR(fs.Truncate(path, size));
  }
  OSLER_ASSIGN_OR_RETURN(auto file, fs.Open(path, OpenMode::kAppend));
  return LogFile(fs, path, std::move(file), size);
}

absl::Status LogFile::Flush() {
  if (pending_.empty()) return absl::OkStatus();
  if (absl::Status written = file_->Append(pending_); !written.ok()) {
    const absl::Status repaired = fs_->Truncate(path_, size_);  // nothing torn before the retry
    return repaired.ok() ? written : repaired;
  }
  size_ += static_cast<int64_t>(pending_.size());
  pending_.clear();
  return absl::OkStatus();
}

void LogFile::Append(std::string_view record) {
  pending_ += record;
  const absl::Status flushed = Flush();
  if (!flushed.ok() && !failing_) {
    LogWarning("{} is held back in memory: {}", path_, std::string(flushed.message()));
  }
  failing_ = !flushed.ok();
}

absl::Status LogFile::Sync() {
  OSLER_RETURN_IF_ERROR(Flush());
  return file_->Sync();
}

}  // namespace osler
