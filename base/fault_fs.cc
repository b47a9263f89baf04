#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/fs.h"
#include "base/status_macros.h"

namespace osler {
namespace {

struct Fault {
  std::string op, substring, error;
  int call = 0;  // 0: every matching call
  std::atomic<int> seen{0};
};

using Faults = std::vector<std::unique_ptr<Fault>>;

absl::Status Check(const Faults& faults, std::string_view op, const std::string& path) {
  for (const auto& fault : faults) {
    if (fault->op != op || path.find(fault->substring) == std::string::npos) continue;
    const int seen = ++fault->seen;
    if (fault->call != 0 && fault->call != seen) continue;
    const std::string message = absl::StrCat("cannot ", fault->op, " ", path, ": ");
    if (fault->error == "ENOSPC") {
      return absl::ResourceExhaustedError(message + "No space left on device");
    }
    return absl::UnknownError(message + "Input/output error");
  }
  return absl::OkStatus();
}

class FaultFile : public WritableFile {
 public:
  FaultFile(std::unique_ptr<WritableFile> base, std::string path, const Faults& faults)
      : base_(std::move(base)), path_(std::move(path)), faults_(faults) {}
  absl::Status Append(std::string_view data) override {
    OSLER_RETURN_IF_ERROR(Check(faults_, "write", path_));
    return base_->Append(data);
  }
  absl::Status Sync() override {
    OSLER_RETURN_IF_ERROR(Check(faults_, "sync", path_));
    return base_->Sync();
  }
  absl::Status Close() override { return base_->Close(); }

 private:
  std::unique_ptr<WritableFile> base_;
  std::string path_;
  const Faults& faults_;
};

class FaultFs : public Fs {
 public:
  FaultFs(Fs& base, Faults faults) : base_(base), faults_(std::move(faults)) {}

  absl::StatusOr<std::string> ReadFile(const std::string& path) override {
    OSLER_RETURN_IF_ERROR(Check(faults_, "read", path));
    return base_.ReadFile(path);
  }
  absl::StatusOr<std::shared_ptr<const MappedFile>> Map(const std::string& path) override {
    OSLER_RETURN_IF_ERROR(Check(faults_, "read", path));
    return base_.Map(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Open(const std::string& path,
                                                     OpenMode mode) override {
    OSLER_ASSIGN_OR_RETURN(auto file, base_.Open(path, mode));
    return std::make_unique<FaultFile>(std::move(file), path, faults_);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    OSLER_RETURN_IF_ERROR(Check(faults_, "rename", to));
    return base_.Rename(from, to);
  }
  absl::Status Truncate(const std::string& path, int64_t size) override {
    return base_.Truncate(path, size);
  }
  absl::Status Remove(const std::string& path) override { return base_.Remove(path); }
  absl::Status RemoveTree(const std::string& path) override { return base_.RemoveTree(path); }
  absl::Status MakeDirectories(const std::string& path) override {
    return base_.MakeDirectories(path);
  }
  absl::Status SyncDirectory(const std::string& path) override {
    OSLER_RETURN_IF_ERROR(Check(faults_, "sync", path));
    return base_.SyncDirectory(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    return base_.List(directory);
  }
  absl::StatusOr<int64_t> Size(const std::string& path) override { return base_.Size(path); }
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) override {
    return base_.FreeBytes(path);
  }
  bool Exists(const std::string& path) override { return base_.Exists(path); }
  bool IsDirectory(const std::string& path) override { return base_.IsDirectory(path); }

 private:
  Fs& base_;
  const Faults faults_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Fs>> MakeFaultFs(Fs& base, std::string_view text) {
  Faults faults;
  for (absl::string_view item :
       absl::StrSplit(absl::string_view(text.data(), text.size()), ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> rule = absl::StrSplit(item, absl::MaxSplits('=', 1));
    const std::pair<std::string, std::string> where =
        absl::StrSplit(rule.first, absl::MaxSplits(':', 1));
    const std::pair<std::string, std::string> path =
        absl::StrSplit(where.second, absl::MaxSplits('@', 1));
    auto fault = std::make_unique<Fault>();
    fault->op = where.first;
    fault->substring = path.first;
    fault->error = rule.second;
    const bool counted =
        path.second.empty() || (absl::SimpleAtoi(path.second, &fault->call) && fault->call > 0);
    const bool known =
        fault->op == "write" || fault->op == "sync" || fault->op == "rename" || fault->op == "read";
    if (!counted || !known || (fault->error != "ENOSPC" && fault->error != "EIO")) {
      return ConfigError(absl::StrCat("bad fault rule '", item,
                                      "': want write|sync|rename|read:substring[@n]=ENOSPC|EIO"));
    }
    faults.push_back(std::move(fault));
  }
  return std::make_unique<FaultFs>(base, std::move(faults));
}

}  // namespace osler
