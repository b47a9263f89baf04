// The directory that `osler data build` fills: staging, and the move of a finished build into
// place.
//
// Not thread-safe; one build at a time writes to a directory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

class OutputDirectory {
 public:
  // Makes `path` ready. A config error if it holds anything that no build writes: a mistyped path
  // must not cost the user's files. Puts right what a killed build left.
  static absl::StatusOr<OutputDirectory> Open(Fs& fs, const std::string& path);
  OutputDirectory(OutputDirectory&& other) noexcept;
  OutputDirectory& operator=(OutputDirectory&&) = delete;
  // Without Publish, what was staged goes, and `path` too if Open made it.
  ~OutputDirectory();

  // Where a split ("train", "validation") is written before it is published.
  std::string Staged(const std::string& split) const;
  // Replaces all splits by the staged ones; after an error the earlier ones are in place again.
  // Killed in between it leaves no split or the new train alone, never splits of two builds.
  absl::Status Publish(const std::vector<std::string>& splits);

 private:
  absl::Status Move(const std::vector<std::string>& splits);
  OutputDirectory(Fs& fs, std::string path, bool created)
      : fs_(&fs), path_(std::move(path)), created_(created) {}
  Fs* fs_;
  std::string path_;
  bool created_;
};

}  // namespace osler
