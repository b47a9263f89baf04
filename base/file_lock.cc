#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace osler {
namespace {

constexpr std::chrono::milliseconds kPause{50};

std::string HolderIn(int descriptor) {
  std::array<char, 256> text{};
  const ssize_t length = pread(descriptor, text.data(), text.size(), 0);
  std::string holder(text.data(), length > 0 ? static_cast<size_t>(length) : 0);
  while (!holder.empty() && holder.back() == '\n') holder.pop_back();
  return holder.empty() ? "another process" : holder;
}

void WriteHolder(int descriptor) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  const std::string text = absl::StrCat("process ", getpid(), " on ", host.data(), "\n");
  // For people only.
  if (ftruncate(descriptor, 0) == 0) (void)!pwrite(descriptor, text.data(), text.size(), 0);
}

}  // namespace

absl::StatusOr<FileLock> FileLock::Take(const std::string& path,
                                        std::chrono::milliseconds patience) {
  FileLock lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (lock.descriptor_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return lock;
    if (std::chrono::steady_clock::now() >= deadline)
      return absl::UnavailableError(HolderIn(lock.descriptor_));
    std::this_thread::sleep_for(kPause);
  }
  WriteHolder(lock.descriptor_);
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace osler
