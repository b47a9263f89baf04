// A file system on a machine that loses power: after a given number of changes every call fails,
// and Lose takes away what was not durable by then: bytes of files since their last Sync, and
// entries of directories (made, renamed, removed) since the last SyncDirectory of their parent.
//
// Changes to one directory become durable in their order, as journals keep it; how many of those
// that were never synced survive, and how many bytes, is drawn. Renames stay in one directory. For
// tests; not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fs.h"

namespace osler::testing {

class PowerLossFs : public Fs {
 public:
  // `trash` is an empty directory of the same disk for what may have to come back.
  PowerLossFs(Fs& base, std::string trash, int64_t changes);

  // `keep` draws from [0, n]: how many of n changes or bytes survive.
  void Lose(const std::function<int64_t(int64_t n)>& keep);
  bool power_is_gone() const { return changes_left_ < 0; }

  absl::StatusOr<std::string> ReadFile(const std::string& path) override;
  absl::StatusOr<std::shared_ptr<const MappedFile>> Map(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Open(const std::string& path,
                                                     OpenMode mode) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Truncate(const std::string& path, int64_t size) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status RemoveTree(const std::string& path) override;
  absl::Status MakeDirectories(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::StatusOr<int64_t> Size(const std::string& path) override;
  absl::StatusOr<int64_t> FreeBytes(const std::string& path) override;
  bool Exists(const std::string& path) override;
  bool IsDirectory(const std::string& path) override;

 private:
  friend class PowerLossFile;
  // An entry of a directory that a loss takes back: `now` is removed, and `before` (in the trash,
  // or a former name) becomes `name` again.
  struct Change {
    std::string directory, now, before, name;
  };
  absl::Status Spend();
  std::string InTrash();
  absl::Status MoveToTrash(const std::string& path, Change& change);
  void Undo(const Change& change);
  void MoveFiles(const std::string& from, const std::string& to);

  Fs& base_;
  const std::string trash_;
  int64_t changes_left_;
  int64_t trashed_ = 0;
  std::vector<Change> pending_;
  std::map<std::string, int64_t> durable_;  // bytes, of files with more than that
};

}  // namespace osler::testing
