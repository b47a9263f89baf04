#include "data/sources/text_rows.h"

#include <algorithm>

#include "data/sources/reject.h"

namespace osler {

absl::StatusOr<std::optional<nlohmann::json>> TextRows::Next() {
  while (!AtEnd()) {
    const size_t found = separator_.empty() ? std::string_view::npos : text_.find(separator_, at_);
    const size_t end = std::min(found, text_.size());
    const std::string_view piece = text_.substr(at_, end - at_);
    const size_t next = std::min(end + separator_.size(), text_.size());
    origin_.line = line_;
    line_ += std::count(text_.begin() + static_cast<int64_t>(at_),
                        text_.begin() + static_cast<int64_t>(next), '\n');
    at_ = next;
    if (IsBlank(piece)) continue;
    if (piece.size() > kMaxRecordBytes)
      return Reject(origin_, kMalformed, "the text is longer than 256 MiB; set a separator");
    if (const std::string why = WhyNotText(piece); !why.empty())
      return Reject(origin_, kMalformed, why + " of the text");
    return nlohmann::json{{"text", piece}};
  }
  return std::nullopt;
}

}  // namespace osler
