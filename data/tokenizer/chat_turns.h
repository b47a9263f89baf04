// Where in a rendered chat the assistant's turns stand. Internal to chat_template.cc.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/record.h"
#include "data/tokenizer/jinja.h"

namespace osler {

struct TurnMarks {
  std::string header;       // what a generation prompt writes; empty if the template has none
  std::string end_of_turn;  // what ends a turn; the model must learn to write it
};

// For each assistant message the bytes [begin, end) that the model is to write: from behind the
// header to the end of turn, that included. If the template writes something else between header
// and content (an empty thought), it belongs to the turn; without the header in front, the turn
// begins with the content. Errors (which message, why) are for a template that does not write each
// content once, in one place, with the end of turn right behind it.
absl::StatusOr<std::vector<std::pair<int64_t, int64_t>>> AssistantTurns(
    const std::vector<Message>& messages, const jinja::Text& text, const TurnMarks& marks);

}  // namespace osler
