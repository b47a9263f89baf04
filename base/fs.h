// All file I/O of the project: a small file system interface, so that tests can inject faults under
// every writer.
//
// Errors name the path and the system's reason; they carry no exit class (callers know whether a
// path is data, checkpoint or configuration and Reclassify). ENOSPC is kResourceExhausted, ENOENT
// kNotFound. An Fs is stateless and thread-safe; files and mappings belong to one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace osler {

// A file being written. Dropping it without Close() closes it and loses the error.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual absl::Status Append(std::string_view data) = 0;
  virtual absl::Status Sync() = 0;  // fsync: durable when it returns OK
  virtual absl::Status Close() = 0;
};

// A read-only memory mapping of a whole file; data() is valid while it lives. An empty file maps to
// "".
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual std::string_view data() const = 0;
};

// kBulk truncates too and is for files of many megabytes: they go to the disk past the page cache
// where the file system can do that, which costs a tenth of the processor time.
enum class OpenMode { kTruncate, kAppend, kBulk };

class Fs {
 public:
  virtual ~Fs() = default;
  virtual absl::StatusOr<std::string> ReadFile(const std::string& path) = 0;
  virtual absl::StatusOr<std::shared_ptr<const MappedFile>> Map(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Open(const std::string& path,
                                                             OpenMode mode) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;  // replaces `to`
  virtual absl::Status Truncate(const std::string& path, int64_t size) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;      // a file; not found is an error
  virtual absl::Status RemoveTree(const std::string& path) = 0;  // not found is OK
  virtual absl::Status MakeDirectories(const std::string& path) = 0;
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  virtual absl::StatusOr<std::vector<std::string>> List(
      const std::string& directory) = 0;  // names, sorted
  virtual absl::StatusOr<int64_t> Size(const std::string& path) = 0;
  virtual absl::StatusOr<int64_t> FreeBytes(
      const std::string& path) = 0;  // for an unprivileged writer
  virtual bool Exists(const std::string& path) = 0;
  virtual bool IsDirectory(const std::string& path) = 0;
};

// The machine's file system.
std::unique_ptr<Fs> MakePosixFs();

// Wraps `base` (which must outlive it) with faults, for tests: "op:substring[@n]=error[,…]" where
// op is write, sync, rename or read, substring selects paths, n counts matching calls from 1
// (without it every matching call fails), and error is ENOSPC or EIO.
absl::StatusOr<std::unique_ptr<Fs>> MakeFaultFs(Fs& base, std::string_view faults);

// Durable and atomic: PATH.tmp is written and synced, renamed over PATH, and the directory synced.
// After an error PATH is what it was (unless only the last sync failed) and PATH.tmp is gone.
absl::Status WriteFileDurably(Fs& fs, const std::string& path, std::string_view content);

// "a" + "b" → "a/b"; an absolute `name` stays as it is.
std::string JoinPath(std::string_view directory, std::string_view name);
// The directory part: "a/b" → "a", "b" → ".".
std::string ParentDirectory(std::string_view path);

}  // namespace osler
