#include "data/sources/json_lines.h"

#include <algorithm>

#include "data/sources/record_json.h"
#include "data/sources/reject.h"

namespace osler {

absl::StatusOr<std::optional<nlohmann::json>> JsonLines::Next() {
  if (AtEnd()) return std::nullopt;
  const size_t end = std::min(text_.find('\n', at_), text_.size());
  std::string_view line = text_.substr(at_, end - at_);
  at_ = end + (end < text_.size() ? 1 : 0);
  ++origin_.line;
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (IsBlank(line)) {
    if (IsBlank(text_.substr(at_))) return at_ = text_.size(), std::nullopt;
    return Reject(origin_, kMalformed, "the line is empty");
  }
  if (line.size() > kMaxRecordBytes)
    return Reject(origin_, kMalformed, "the line is longer than 256 MiB");
  return ParseRow(line, origin_);
}

}  // namespace osler
