#include "tests/testing/power_loss_fs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace osler::testing {
namespace {

absl::Status Gone() { return absl::UnavailableError("the power is gone"); }

}  // namespace

class PowerLossFile : public WritableFile {
 public:
  PowerLossFile(PowerLossFs& fs, std::string path, std::unique_ptr<WritableFile> file)
      : fs_(fs), path_(std::move(path)), file_(std::move(file)) {}
  absl::Status Append(std::string_view data) override {
    OSLER_RETURN_IF_ERROR(fs_.Spend());
    return file_->Append(data);
  }
  absl::Status Sync() override {
    OSLER_RETURN_IF_ERROR(fs_.Spend());
    OSLER_RETURN_IF_ERROR(file_->Sync());
    fs_.durable_.erase(path_);
    return absl::OkStatus();
  }
  absl::Status Close() override { return fs_.power_is_gone() ? Gone() : file_->Close(); }

 private:
  PowerLossFs& fs_;
  const std::string path_;
  std::unique_ptr<WritableFile> file_;
};

PowerLossFs::PowerLossFs(Fs& base, std::string trash, int64_t changes)
    : base_(base), trash_(std::move(trash)), changes_left_(changes) {}

absl::Status PowerLossFs::Spend() {
  if (changes_left_ < 0) return Gone();
  return --changes_left_ < 0 ? Gone() : absl::OkStatus();
}

std::string PowerLossFs::InTrash() { return JoinPath(trash_, absl::StrCat(trashed_++)); }

absl::Status PowerLossFs::MoveToTrash(const std::string& path, Change& change) {
  if (!base_.Exists(path)) return absl::OkStatus();
  change.before = InTrash();
  change.name = path;
  OSLER_RETURN_IF_ERROR(base_.Rename(path, change.before));
  MoveFiles(path, change.before);
  return absl::OkStatus();
}

void PowerLossFs::MoveFiles(const std::string& from, const std::string& to) {
  std::map<std::string, int64_t> moved;
  for (const auto& [path, size] : durable_) {
    const bool inside = path == from || absl::StartsWith(path, from + "/");
    moved[inside ? to + path.substr(from.size()) : path] = size;
  }
  durable_ = std::move(moved);
}

void PowerLossFs::Undo(const Change& change) {
  if (!change.now.empty() && base_.Exists(change.now) && change.before.empty())
    OSLER_CHECK(base_.RemoveTree(change.now).ok());
  if (change.before.empty()) return;
  OSLER_CHECK(base_.Rename(change.before, change.name).ok());
  MoveFiles(change.before, change.name);
}

void PowerLossFs::Lose(const std::function<int64_t(int64_t)>& keep) {
  std::map<std::string, std::vector<size_t>> by_directory;
  for (size_t i = 0; i < pending_.size(); ++i) by_directory[pending_[i].directory].push_back(i);
  std::vector<size_t> lost;
  for (const auto& [directory, changes] : by_directory) {
    const auto kept = static_cast<size_t>(keep(static_cast<int64_t>(changes.size())));
    lost.insert(lost.end(), changes.begin() + static_cast<int64_t>(kept), changes.end());
  }
  std::sort(lost.rbegin(), lost.rend());
  for (const size_t i : lost) Undo(pending_[i]);
  for (const auto& [path, durable] : durable_) {
    if (!base_.Exists(path)) continue;
    const int64_t more = *base_.Size(path) - durable;
    OSLER_CHECK(base_.Truncate(path, durable + keep(more)).ok());
  }
}

absl::StatusOr<std::unique_ptr<WritableFile>> PowerLossFs::Open(const std::string& path,
                                                                OpenMode mode) {
  OSLER_RETURN_IF_ERROR(Spend());
  Change change{ParentDirectory(path), path, {}, {}};
  const bool appends = mode == OpenMode::kAppend && base_.Exists(path);
  if (!appends) OSLER_RETURN_IF_ERROR(MoveToTrash(path, change));
  OSLER_ASSIGN_OR_RETURN(auto file, base_.Open(path, mode));
  durable_[path] = appends ? base_.Size(path).value_or(0) : 0;
  if (!appends) {
    // First the new name goes, then the old content comes back.
    if (!change.before.empty())
      pending_.push_back({change.directory, {}, change.before, change.name});
    pending_.push_back({change.directory, path, {}, {}});
  }
  return std::make_unique<PowerLossFile>(*this, path, std::move(file));
}

absl::Status PowerLossFs::Rename(const std::string& from, const std::string& to) {
  OSLER_RETURN_IF_ERROR(Spend());
  OSLER_CHECK(ParentDirectory(from) == ParentDirectory(to));
  Change replaced{ParentDirectory(to), {}, {}, {}};
  OSLER_RETURN_IF_ERROR(MoveToTrash(to, replaced));
  OSLER_RETURN_IF_ERROR(base_.Rename(from, to));
  MoveFiles(from, to);
  if (!replaced.before.empty()) pending_.push_back(replaced);
  pending_.push_back({replaced.directory, to, to, from});
  return absl::OkStatus();
}

absl::Status PowerLossFs::Truncate(const std::string& path, int64_t size) {
  OSLER_RETURN_IF_ERROR(Spend());
  return base_.Truncate(path, size);
}

absl::Status PowerLossFs::Remove(const std::string& path) {
  if (!base_.Exists(path)) return absl::NotFoundError(path);
  return RemoveTree(path);
}

absl::Status PowerLossFs::RemoveTree(const std::string& path) {
  OSLER_RETURN_IF_ERROR(Spend());
  if (!base_.Exists(path)) return absl::OkStatus();
  Change change{ParentDirectory(path), {}, {}, {}};
  OSLER_RETURN_IF_ERROR(MoveToTrash(path, change));
  pending_.push_back(change);
  return absl::OkStatus();
}

absl::Status PowerLossFs::MakeDirectories(const std::string& path) {
  if (base_.Exists(path)) return absl::OkStatus();
  const std::string parent = ParentDirectory(path);
  OSLER_RETURN_IF_ERROR(MakeDirectories(parent));
  OSLER_RETURN_IF_ERROR(Spend());
  OSLER_RETURN_IF_ERROR(base_.MakeDirectories(path));
  pending_.push_back({parent, path, {}, {}});
  return absl::OkStatus();
}

absl::Status PowerLossFs::SyncDirectory(const std::string& path) {
  OSLER_RETURN_IF_ERROR(Spend());
  std::erase_if(pending_, [&](const Change& one) { return one.directory == path; });
  return base_.SyncDirectory(path);
}

absl::StatusOr<std::string> PowerLossFs::ReadFile(const std::string& path) {
  return power_is_gone() ? absl::StatusOr<std::string>(Gone()) : base_.ReadFile(path);
}
absl::StatusOr<std::shared_ptr<const MappedFile>> PowerLossFs::Map(const std::string& path) {
  if (power_is_gone()) return Gone();
  return base_.Map(path);
}
absl::StatusOr<std::vector<std::string>> PowerLossFs::List(const std::string& directory) {
  if (power_is_gone()) return Gone();
  return base_.List(directory);
}
absl::StatusOr<int64_t> PowerLossFs::Size(const std::string& path) { return base_.Size(path); }
absl::StatusOr<int64_t> PowerLossFs::FreeBytes(const std::string& path) {
  return base_.FreeBytes(path);
}
bool PowerLossFs::Exists(const std::string& path) { return base_.Exists(path); }
bool PowerLossFs::IsDirectory(const std::string& path) { return base_.IsDirectory(path); }

}  // namespace osler::testing
