// What the container formats have in common: each turns one outside file into rows, JSON documents
// in file order. What a row's fields mean is not theirs to know (data/sources/field_map.h).
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/record.h"
#include "data/sources/text_file.h"

namespace osler {

// Not thread-safe.
class RowReader {
 public:
  virtual ~RowReader() = default;
  // The next row; nullopt at the end. A rejected row (data/sources/reject.h) leaves the reader
  // behind it; after any other error, which says that the rest of the file cannot be told apart,
  // it stands at the end.
  virtual absl::StatusOr<std::optional<nlohmann::json>> Next() = 0;
  // Of the row that Next() read last.
  const Origin& origin() const { return origin_; }
  int64_t position() const {  // bytes of the file
    return static_cast<int64_t>(at_ + map_->data().size() - text_.size());
  }

 protected:
  explicit RowReader(TextFile file) : text_(file.text), map_(std::move(file.map)) {
    origin_.file = std::move(file.path);
  }
  bool AtEnd() const { return at_ >= text_.size(); }

  const std::string_view text_;
  size_t at_ = 0;
  Origin origin_;

 private:
  const std::shared_ptr<const MappedFile> map_;  // holds text_
};

}  // namespace osler
