#include "parallel/control_message.h"

#include "absl/strings/str_cat.h"
#include "parallel/tcp/frame.h"

namespace osler {

std::string Text(const Blame& blame) {
  return absl::StrCat("rank ", blame.rank, " ", blame.reason);
}

std::string Encode(const Words& words) {
  return tcp::FieldWriter()
      .Int(words.exit_code)
      .Text(std::string_view(words.message).substr(0, kLongestWords))
      .bytes();
}

std::string Encode(const Blame& blame) {
  return tcp::FieldWriter().Int(blame.rank).Text(blame.reason).bytes();
}

bool Decode(std::string_view payload, Words& words) {
  tcp::FieldReader fields(payload);
  words = {static_cast<int>(fields.Int()), fields.Text()};
  return fields.AtEnd();
}

bool Decode(std::string_view payload, Blame& blame) {
  tcp::FieldReader fields(payload);
  blame = {static_cast<int>(fields.Int()), fields.Text()};
  return fields.AtEnd();
}

}  // namespace osler
