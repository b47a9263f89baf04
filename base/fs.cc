#include "base/fs.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace osler {
namespace {

namespace stdfs = std::filesystem;

absl::Status ErrnoError(int error, std::string_view what, const std::string& path) {
  const std::string message = absl::StrCat("cannot ", absl::string_view(what.data(), what.size()),
                                           " ", path, ": ", std::strerror(error));
  switch (error) {
    case ENOENT: return absl::NotFoundError(message);
    case ENOSPC:
    case EDQUOT: return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS: return absl::PermissionDeniedError(message);
    default: return absl::UnknownError(message);
  }
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

class PosixFile : public WritableFile {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  absl::Status Append(std::string_view data) override {
    while (!data.empty()) {
      const ssize_t n = write(fd_.get(), data.data(), data.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EINVAL && LeaveDirect()) continue;  // blocks larger than ours
      if (n < 0) return ErrnoError(errno, "write", path_);
      data.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }
  absl::Status Sync() override {
    return fsync(fd_.get()) == 0 ? absl::OkStatus() : ErrnoError(errno, "sync", path_);
  }
  absl::Status Close() override {
    const int fd = fd_.Release();
    if (fd >= 0 && close(fd) != 0) return ErrnoError(errno, "close", path_);
    return absl::OkStatus();
  }
  // From now on past the page cache; whether the file system can.
  bool EnterDirect() {
    return fcntl(fd_.get(), F_SETFL, fcntl(fd_.get(), F_GETFL) | O_DIRECT) == 0;
  }
  // From now on through the page cache; whether it was past it.
  bool LeaveDirect() {
    const int flags = fcntl(fd_.get(), F_GETFL);
    return (flags & O_DIRECT) != 0 && fcntl(fd_.get(), F_SETFL, flags & ~O_DIRECT) == 0;
  }

 private:
  Descriptor fd_;
  std::string path_;
};

// The first bytes go through the page cache, whole blocks after them on O_DIRECT from an aligned
// buffer where the file system can do that, and the end through the page cache again.
class PosixBulkFile : public WritableFile {
 public:
  PosixBulkFile(int fd, std::string path) : file_(fd, std::move(path)) {}

  absl::Status Append(std::string_view data) override {
    if (plain_ < kBufferBytes) {
      const std::string_view first = data.substr(0, kBufferBytes - plain_);
      OSLER_RETURN_IF_ERROR(file_.Append(first));
      plain_ += first.size();
      data.remove_prefix(first.size());
      if (plain_ == kBufferBytes) EnterDirect();
    }
    if (buffer_ == nullptr) return file_.Append(data);
    while (!data.empty()) {
      const size_t part = std::min(data.size(), kBufferBytes - used_);
      std::memcpy(buffer_.get() + used_, data.data(), part);
      used_ += part;
      data.remove_prefix(part);
      if (used_ == kBufferBytes) OSLER_RETURN_IF_ERROR(Flush());
    }
    return absl::OkStatus();
  }
  absl::Status Sync() override {
    OSLER_RETURN_IF_ERROR(FlushEnd());
    return file_.Sync();
  }
  absl::Status Close() override {
    OSLER_RETURN_IF_ERROR(FlushEnd());
    return file_.Close();
  }

 private:
  static constexpr size_t kAlignment = 4096;
  static constexpr size_t kBufferBytes = size_t{8} << 20;

  void EnterDirect() {
    if (!file_.EnterDirect()) return;
    buffer_.reset(static_cast<char*>(std::aligned_alloc(kAlignment, kBufferBytes)));
    if (buffer_ == nullptr) throw std::bad_alloc();
  }
  absl::Status Flush() { return file_.Append({buffer_.get(), std::exchange(used_, 0)}); }
  // After this, sizes and offsets are no longer whole blocks.
  absl::Status FlushEnd() {
    if (buffer_ == nullptr) return absl::OkStatus();
    file_.LeaveDirect();
    const absl::Status flushed = Flush();
    buffer_.reset();
    return flushed;
  }

  PosixFile file_;
  std::unique_ptr<char, decltype(&std::free)> buffer_{nullptr, &std::free};
  size_t plain_ = 0, used_ = 0;
};

class PosixMapping : public MappedFile {
 public:
  PosixMapping(void* base, size_t size) : base_(base), size_(size) {}
  ~PosixMapping() override {
    if (size_ > 0) munmap(base_, size_);
  }
  std::string_view data() const override { return {static_cast<const char*>(base_), size_}; }

 private:
  void* base_;
  size_t size_;
};

class PosixFs : public Fs {
 public:
  absl::StatusOr<std::string> ReadFile(const std::string& path) override {
    const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) return ErrnoError(errno, "open", path);
    std::string text;
    char buffer[1 << 16];
    while (true) {
      const ssize_t n = read(fd.get(), buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, "read", path);
      if (n == 0) return text;
      text.append(buffer, static_cast<size_t>(n));
    }
  }

  absl::StatusOr<std::shared_ptr<const MappedFile>> Map(const std::string& path) override {
    const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) return ErrnoError(errno, "open", path);
    struct stat info {};
    if (fstat(fd.get(), &info) != 0) return ErrnoError(errno, "stat", path);
    if (!S_ISREG(info.st_mode)) return ErrnoError(EISDIR, "map", path);
    const auto size = static_cast<size_t>(info.st_size);
    if (size == 0) return std::make_shared<PosixMapping>(nullptr, 0);
    void* base = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (base == MAP_FAILED) return ErrnoError(errno, "map", path);
    return std::make_shared<PosixMapping>(base, size);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> Open(const std::string& path,
                                                     OpenMode mode) override {
    const int flags =
        O_WRONLY | O_CREAT | O_CLOEXEC | (mode == OpenMode::kAppend ? O_APPEND : O_TRUNC);
    const int fd = open(path.c_str(), flags, 0644);
    if (fd < 0) return ErrnoError(errno, "create", path);
    if (mode == OpenMode::kBulk) return std::make_unique<PosixBulkFile>(fd, path);
    return std::make_unique<PosixFile>(fd, path);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    return rename(from.c_str(), to.c_str()) == 0 ? absl::OkStatus()
                                                 : ErrnoError(errno, "rename to", to);
  }
  absl::Status Truncate(const std::string& path, int64_t size) override {
    return truncate(path.c_str(), size) == 0 ? absl::OkStatus()
                                             : ErrnoError(errno, "truncate", path);
  }
  absl::Status Remove(const std::string& path) override {
    return unlink(path.c_str()) == 0 ? absl::OkStatus() : ErrnoError(errno, "remove", path);
  }
  absl::Status RemoveTree(const std::string& path) override {
    std::error_code error;
    stdfs::remove_all(path, error);
    return error ? ErrnoError(error.value(), "remove", path) : absl::OkStatus();
  }
  absl::Status MakeDirectories(const std::string& path) override {
    std::error_code error;
    stdfs::create_directories(path, error);
    return error ? ErrnoError(error.value(), "create directory", path) : absl::OkStatus();
  }
  absl::Status SyncDirectory(const std::string& path) override {
    const Descriptor fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.get() < 0) return ErrnoError(errno, "open directory", path);
    return fsync(fd.get()) == 0 ? absl::OkStatus() : ErrnoError(errno, "sync directory", path);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    std::error_code error;
    std::vector<std::string> names;
    stdfs::directory_iterator it(directory, error);
    for (; !error && it != stdfs::directory_iterator(); it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) return ErrnoError(error.value(), "list", directory);
    std::sort(names.begin(), names.end());
    return names;
  }
  absl::StatusOr<int64_t> Size(const std::string& path) override {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) return ErrnoError(errno, "stat", path);
    return info.st_size;
  }
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) override {
    struct statvfs info {};
    if (statvfs(path.c_str(), &info) != 0) return ErrnoError(errno, "stat file system of", path);
    return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  }
  bool Exists(const std::string& path) override { return access(path.c_str(), F_OK) == 0; }
  bool IsDirectory(const std::string& path) override {
    std::error_code error;
    return stdfs::is_directory(path, error);
  }
};

}  // namespace

std::unique_ptr<Fs> MakePosixFs() { return std::make_unique<PosixFs>(); }

absl::Status WriteFileDurably(Fs& fs, const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  const auto replace = [&]() -> absl::Status {
    OSLER_ASSIGN_OR_RETURN(const auto file, fs.Open(temporary, OpenMode::kTruncate));
    OSLER_RETURN_IF_ERROR(file->Append(content));
    OSLER_RETURN_IF_ERROR(file->Sync());
    OSLER_RETURN_IF_ERROR(file->Close());
    return fs.Rename(temporary, path);
  };
  if (const absl::Status status = replace(); !status.ok()) {
    fs.Remove(temporary)
        .IgnoreError();  // a full disk needs the room; the first error is the one to tell
    return status;
  }
  return fs.SyncDirectory(ParentDirectory(path));
}

std::string JoinPath(std::string_view directory, std::string_view name) {
  return (stdfs::path(directory) / stdfs::path(name)).string();
}

std::string ParentDirectory(std::string_view path) {
  const std::string parent = stdfs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace osler
