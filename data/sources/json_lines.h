// A JSON Lines file read from a mapping, one strict document a line.
//
// A byte order mark at the start, CRLF line ends and empty lines at the end of the file are
// tolerated; an empty line elsewhere and a line of more than 256 MiB are rejected. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/record.h"

namespace osler {

inline constexpr size_t kMaxLineBytes = size_t{256} << 20;

class JsonLines {
 public:
  static absl::StatusOr<JsonLines> Open(Fs& fs, const std::string& path);

  // The next line's document; nullopt at the end. After an error (data/sources/reject.h) it stands
  // behind the line.
  absl::StatusOr<std::optional<nlohmann::json>> Next();
  // Of the line that Next() read last.
  const Origin& origin() const { return origin_; }
  int64_t position() const { return static_cast<int64_t>(at_); }
  int64_t size() const { return static_cast<int64_t>(file_->data().size()); }

 private:
  JsonLines(std::shared_ptr<const MappedFile> file, std::string path);
  std::shared_ptr<const MappedFile> file_;
  size_t at_ = 0;
  Origin origin_;
};

}  // namespace osler
