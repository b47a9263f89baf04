#include "data/tokenizer/chat_turns.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

// The place of one message's content: consecutive spans of it.
struct Place {
  size_t before = 0;  // end of what was written of another content before it
  size_t begin = 0, end = 0;
};

absl::Status Wrong(int64_t message, std::string_view why) {
  return ConfigError(absl::StrCat("the content of message ", message + 1, " ",
                                  absl::string_view(why.data(), why.size())));
}

absl::StatusOr<std::vector<Place>> FindPlaces(const std::vector<Message>& messages,
                                              const jinja::Text& text) {
  std::vector<Place> places(messages.size());
  std::vector<uint8_t> seen(messages.size());
  int64_t now = -1;
  size_t written = 0, taken = 0;  // in the text; of the content
  for (const jinja::Span& span : text.spans) {
    const size_t index = static_cast<size_t>(span.message);
    const bool assistant = messages[index].role == "assistant";
    Place& place = places[index];
    if (span.message != now) {
      if (assistant && seen[index] != 0) return Wrong(span.message, "is written twice");
      place = {written, span.begin, span.end};
      seen[index] = 1;
    } else if (assistant && span.begin < span.end && span.from < taken) {
      return Wrong(span.message, "is written twice");
    }
    now = span.message;
    place.end = written = span.end;
    taken = span.from + (span.end - span.begin);
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == "assistant" && seen[i] == 0) {
      return Wrong(static_cast<int64_t>(i), "is not written");
    }
  }
  return places;
}

}  // namespace

absl::StatusOr<std::vector<std::pair<int64_t, int64_t>>> AssistantTurns(
    const std::vector<Message>& messages, const jinja::Text& text, const TurnMarks& marks) {
  OSLER_ASSIGN_OR_RETURN(const std::vector<Place> places, FindPlaces(messages, text));
  const std::string &bytes = text.bytes, &header = marks.header, &end = marks.end_of_turn;
  std::vector<std::pair<int64_t, int64_t>> turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    const Place& place = places[i];
    if (bytes.compare(place.end, end.size(), end) != 0) {
      return Wrong(static_cast<int64_t>(i), absl::StrCat("is not followed by ", end));
    }
    size_t begin = place.begin;
    if (!header.empty() && begin - place.before >= header.size()) {
      const size_t found = bytes.rfind(header, begin - header.size());
      if (found != std::string::npos && found >= place.before) begin = found + header.size();
    }
    turns.emplace_back(begin, place.end + end.size());
  }
  std::sort(turns.begin(), turns.end());
  return turns;
}

}  // namespace osler
