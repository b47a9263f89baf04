// Format chat_jsonl: {"id", "subject", "messages": [{"role", "content"}, …], "known": {"name": […],
// "id": […]}}.
#pragma once

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "data/record.h"

namespace osler {

// One line's document as a record.
absl::StatusOr<RawRecord> ParseChatRecord(const nlohmann::json& document, const Origin& origin);

}  // namespace osler
