// Format chat_jsonl: {"id", "subject", "messages": [{"role", "content"}, …], "known": {"name": […],
// "id": […]}}.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "data/sources/json_lines.h"
#include "data/sources/source.h"

namespace osler {

std::unique_ptr<Source> MakeChatJsonl(JsonLines lines, bool trusted);

// One line's document as a record.
absl::StatusOr<RawRecord> ParseChatRecord(const nlohmann::json& document, const Origin& origin);

}  // namespace osler
