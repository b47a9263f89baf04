// A lock on a file, held by one process at a time, on one host or, where the file system supports
// it, on all that share it. The kernel lets go of it when the process ends, however it ends.
#pragma once

#include <chrono>
#include <string>

#include "absl/status/statusor.h"

namespace osler {

// Movable; lets go in its destructor.
class FileLock {
 public:
  // Makes the file where needed and waits up to `patience` for another holder to end.
  // kUnavailable: it is held by another process; the file says which. Other errors: the file cannot
  // be opened. Where the file system knows no locks the result holds none.
  static absl::StatusOr<FileLock> Take(const std::string& path, std::chrono::milliseconds patience);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace osler
