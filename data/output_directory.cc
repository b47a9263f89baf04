#include "data/output_directory.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr char kStaging[] = ".building";
constexpr std::array<const char*, 2> kSplits = {"train", "validation"};

// Files of shard directories as docs/shard.md lists them.
bool IsShardDirectoryFile(const std::string& name) {
  static constexpr std::array<std::string_view, 5> kNames = {
      "index.bin", "certificate.json", "report.json", "manifest.json", "lengths"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() ||
         (absl::StartsWith(name, "shard-") && absl::EndsWith(name, ".osd"));
}

absl::Status Refuse(const std::string& path, const std::string& why) {
  return ConfigError(
      absl::StrCat("output.path: ", path, " ", why,
                   ", so a build will not replace it; choose another path, or remove it yourself"));
}

absl::Status CheckOurs(Fs& fs, const std::string& path) {
  if (!fs.IsDirectory(path)) return Refuse(path, "is no directory");
  OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(path));
  for (const std::string& name : names) {
    if (name == kStaging) continue;
    const std::string split = JoinPath(path, name);
    if (std::find(kSplits.begin(), kSplits.end(), name) == kSplits.end() ||
        !fs.IsDirectory(split)) {
      return Refuse(path, absl::StrCat("holds '", name, "', which no build of shards writes"));
    }
    OSLER_ASSIGN_OR_RETURN(const std::vector<std::string> files, fs.List(split));
    for (const std::string& file : files) {
      if (!IsShardDirectoryFile(file)) {
        return Refuse(split, absl::StrCat("holds '", file, "', which no shard directory has"));
      }
    }
  }
  return absl::OkStatus();
}

std::string AsidePath(const std::string& path, const std::string& split) {
  return JoinPath(path, absl::StrCat(kStaging, "/old-", split));
}

// A build killed while it moved splits has put the earlier ones aside: they come back if nothing
// took their place.
absl::Status Recover(Fs& fs, const std::string& path) {
  const std::string staging = JoinPath(path, kStaging);
  if (!fs.Exists(staging)) return absl::OkStatus();
  LogInfo("{} was left by a build that did not finish: removed", staging);
  const bool replaced = std::any_of(kSplits.begin(), kSplits.end(), [&](const char* split) {
    return fs.Exists(JoinPath(path, split));
  });
  for (const char* split : kSplits) {
    const std::string aside = AsidePath(path, split);
    if (!replaced && fs.Exists(aside))
      OSLER_RETURN_IF_ERROR(fs.Rename(aside, JoinPath(path, split)));
  }
  return fs.RemoveTree(staging);
}

}  // namespace

absl::StatusOr<OutputDirectory> OutputDirectory::Open(Fs& fs, const std::string& path) {
  const bool exists = fs.Exists(path);
  if (exists) OSLER_RETURN_IF_ERROR(CheckOurs(fs, path));
  if (exists) OSLER_RETURN_IF_ERROR(Recover(fs, path));
  OSLER_RETURN_IF_ERROR(fs.MakeDirectories(JoinPath(path, kStaging)));
  return OutputDirectory(fs, path, !exists);
}

OutputDirectory::OutputDirectory(OutputDirectory&& other) noexcept
    : fs_(std::exchange(other.fs_, nullptr)),
      path_(std::move(other.path_)),
      created_(other.created_) {}

OutputDirectory::~OutputDirectory() {
  if (fs_ == nullptr) return;
  const absl::Status removed = fs_->RemoveTree(created_ ? path_ : JoinPath(path_, kStaging));
  if (!removed.ok()) LogWarning("{}", std::string(removed.message()));
}

std::string OutputDirectory::Staged(const std::string& split) const {
  return JoinPath(path_, absl::StrCat(kStaging, "/", split));
}

absl::Status OutputDirectory::Publish(const std::vector<std::string>& splits) {
  absl::Status moved = Move(splits);
  if (moved.ok()) {
    created_ = false;
    return fs_->SyncDirectory(path_);
  }
  for (const std::string& split : splits) {
    const std::string place = JoinPath(path_, split);
    if (!fs_->Exists(Staged(split)) && fs_->Exists(place))
      fs_->Rename(place, Staged(split)).IgnoreError();
  }
  for (const char* split : kSplits) {
    const std::string aside = AsidePath(path_, split);
    if (fs_->Exists(aside)) fs_->Rename(aside, JoinPath(path_, split)).IgnoreError();
  }
  return moved;
}

absl::Status OutputDirectory::Move(const std::vector<std::string>& splits) {
  for (auto split = kSplits.rbegin(); split != kSplits.rend(); ++split) {
    const std::string old = JoinPath(path_, *split);
    if (fs_->Exists(old)) OSLER_RETURN_IF_ERROR(fs_->Rename(old, AsidePath(path_, *split)));
  }
  for (const std::string& split : splits) {
    OSLER_RETURN_IF_ERROR(fs_->Rename(Staged(split), JoinPath(path_, split)));
  }
  return absl::OkStatus();
}

}  // namespace osler
