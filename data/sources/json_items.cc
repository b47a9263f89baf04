#include "data/sources/json_items.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/sources/record_json.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }  // RFC 8259

}  // namespace

absl::StatusOr<std::optional<nlohmann::json>> JsonItems::Next() {
  if (state_ == State::kEnd) return std::nullopt;
  if (state_ == State::kStart) OSLER_RETURN_IF_ERROR(Enter());
  SkipBlank();
  if (Peek() == closing_) {
    OSLER_RETURN_IF_ERROR(Leave());
    return std::nullopt;
  }
  if (!is_first_) {
    if (Peek() != ',')
      return Broken(absl::StrCat("no comma and no end of the list after record ", origin_.record));
    ++at_;
    SkipBlank();
  }
  is_first_ = false;
  return NextItem();
}

absl::StatusOr<std::optional<nlohmann::json>> JsonItems::NextItem() {
  origin_.line = line_;
  ++origin_.record;
  std::string key;
  if (closing_ == '}') {
    OSLER_ASSIGN_OR_RETURN(key, TakeKey());
    OSLER_RETURN_IF_ERROR(TakeColon());
  }
  OSLER_ASSIGN_OR_RETURN(const std::string_view item, TakeValue());
  if (item.size() > kMaxRecordBytes)
    return Reject(origin_, kMalformed, "the record is longer than 256 MiB");
  if (closing_ == ']') return ParseRow(item, origin_);
  if (!keys_.insert(key).second)
    return Reject(origin_, kMalformed, "its key stands in the file before");
  OSLER_ASSIGN_OR_RETURN(nlohmann::json row, ParseRow(item, origin_));
  if (row.is_object()) row["$key"] = std::move(key);
  return row;
}

absl::Status JsonItems::Enter() {
  origin_.line = 1;
  if (!records_.empty()) {
    for (const absl::string_view name : absl::StrSplit(records_, '.'))
      OSLER_RETURN_IF_ERROR(OpenMember(std::string(name)));
  }
  SkipBlank();
  if (Peek() != '[' && Peek() != '{') {
    return Broken(AtEnd() ? "the file is empty or cut short"
                          : "expected one JSON array of records, or one object of records by id");
  }
  closing_ = text_[at_++] == '[' ? ']' : '}';
  state_ = State::kItems;
  return absl::OkStatus();
}

// Behind the records: what else the objects around them hold, and nothing more.
absl::Status JsonItems::Leave() {
  ++at_;
  std::string key;
  for (; depth_ > 0; --depth_) {
    is_first_ = false;  // the member that leads to the records stands before
    while (true) {
      OSLER_ASSIGN_OR_RETURN(const bool is_member, NextMember(key));
      if (!is_member) break;
      OSLER_RETURN_IF_ERROR(TakeValue().status());
    }
  }
  SkipBlank();
  if (!AtEnd()) return Broken("more text follows the end of the JSON document");
  state_ = State::kEnd;
  return absl::OkStatus();
}

// Moves to the value of the member called `name` of the object that begins here.
absl::Status JsonItems::OpenMember(const std::string& name) {
  SkipBlank();
  const std::string missing = absl::StrCat("records: the file has no object with \"", name, "\"");
  if (Peek() != '{') return Broken(missing);
  ++at_;
  ++depth_;
  is_first_ = true;
  std::string key;
  while (true) {
    OSLER_ASSIGN_OR_RETURN(const bool is_member, NextMember(key));
    if (!is_member) return Broken(missing);
    if (key == name) break;
    OSLER_RETURN_IF_ERROR(TakeValue().status());
  }
  is_first_ = true;
  return absl::OkStatus();
}

// Reads up to the value of the next member; false behind the object's end.
absl::StatusOr<bool> JsonItems::NextMember(std::string& key) {
  SkipBlank();
  if (Peek() == '}') {
    ++at_;
    return false;
  }
  if (!is_first_) {
    if (Peek() != ',') return Broken("a comma or closing brace is missing");
    ++at_;
    SkipBlank();
  }
  is_first_ = false;
  OSLER_ASSIGN_OR_RETURN(key, TakeKey());
  OSLER_RETURN_IF_ERROR(TakeColon());
  return true;
}

absl::Status JsonItems::TakeColon() {
  SkipBlank();
  if (Peek() != ':') return Broken("no colon after a key");
  ++at_;
  SkipBlank();
  return absl::OkStatus();
}

absl::StatusOr<std::string> JsonItems::TakeKey() {
  if (Peek() != '"') return Broken("no key in quotes where one must stand");
  OSLER_ASSIGN_OR_RETURN(const std::string_view quoted, TakeValue());
  const auto key = ParseRecordJson(quoted);
  if (!key.ok() || !key->is_string()) return Broken("a key is no valid JSON string");
  return key->get<std::string>();
}

// The text of the value that begins here, found by its brackets and quotes alone.
absl::StatusOr<std::string_view> JsonItems::TakeValue() {
  const size_t begin = at_;
  size_t open = 0;
  bool quoted = false;
  for (; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (quoted) {
      if (c == '\\') {
        ++at_;
      } else if (c == '"') {
        quoted = false;
        if (open == 0) break;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++open;
    } else if (c == '}' || c == ']') {
      if (open <= 1) break;
      --open;
    } else if (open == 0 && (c == ',' || IsSpace(c))) {
      break;
    }
  }
  if (AtEnd())
    return Broken("the file ends inside a value: it is cut short, or a quote is missing");
  const bool is_bare = open == 0 && text_[at_] != '"';  // what ended it is not its own
  if (!is_bare) ++at_;
  const std::string_view value = text_.substr(begin, at_ - begin);
  if (value.empty()) return Broken("a value is missing");
  line_ += std::count(value.begin(), value.end(), '\n');
  return value;
}

void JsonItems::SkipBlank() {
  for (; !AtEnd() && IsSpace(text_[at_]); ++at_) line_ += text_[at_] == '\n' ? 1 : 0;
}

absl::Status JsonItems::Broken(std::string_view why) {
  Origin here = origin_;
  here.line = line_;
  at_ = text_.size();
  state_ = State::kEnd;
  return Annotate(DataError(why), PlaceOf(here));
}

}  // namespace osler
