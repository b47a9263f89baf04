#include "data/sources/chat_jsonl.h"

#include "base/status_macros.h"
#include "data/sources/fields.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

using Json = nlohmann::json;

absl::Status ReadKnown(const Json& document, RawRecord& record) {
  const Json* known = FindField(document, "known");
  if (known == nullptr || known->is_null()) return absl::OkStatus();
  if (!known->is_object()) {
    return Reject(record.origin, kWrongShape,
                  "\"known\" must be an object such as {\"name\": [], \"id\": []}");
  }
  for (const auto& [kind, values] : known->items())
    OSLER_RETURN_IF_ERROR(ReadKnownValues(kind, values, record));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RawRecord> ParseChatRecord(const Json& document, const Origin& origin) {
  RawRecord record;
  OSLER_RETURN_IF_ERROR(ReadHead(document, origin, record));
  const Json* messages = FindField(document, "messages");
  if (messages == nullptr) return Reject(origin, kWrongShape, "\"messages\" is missing");
  OSLER_RETURN_IF_ERROR(ReadMessages(*messages, "messages", record));
  OSLER_RETURN_IF_ERROR(ReadKnown(document, record));
  return record;
}

}  // namespace osler
