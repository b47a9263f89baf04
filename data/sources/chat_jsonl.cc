#include "data/sources/chat_jsonl.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/sources/fields.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

using Json = nlohmann::json;

bool IsRole(const std::string& role) {
  return role == "system" || role == "user" || role == "assistant";
}

absl::Status ReadMessages(const Json& document, RawRecord& record) {
  const auto reject = [&](const std::string& why) {
    return Reject(record.origin, kWrongShape, why);
  };
  const Json* messages = FindField(document, "messages");
  if (messages == nullptr) return reject("\"messages\" is missing");
  if (!messages->is_array()) return reject("\"messages\" must be a list");
  if (messages->empty()) return reject("\"messages\" is empty");
  for (size_t i = 0; i < messages->size(); ++i) {
    const std::string where = absl::StrCat("message ", i + 1);
    const Json& message = (*messages)[i];
    if (!message.is_object())
      return reject(where + " must be an object with \"role\" and \"content\"");
    const Json* role = FindField(message, "role");
    const Json* content = FindField(message, "content");
    if (role == nullptr || !role->is_string() || !IsRole(role->get_ref<const std::string&>())) {
      return reject(where + ": \"role\" must be system, user or assistant");
    }
    if (content == nullptr || !content->is_string())
      return reject(where + ": \"content\" must be a string");
    if (content->get_ref<const std::string&>().empty())
      return reject(where + ": \"content\" is empty");
    record.body.messages.push_back({role->get<std::string>(), content->get<std::string>()});
  }
  return absl::OkStatus();
}

// A kind with "name" in it ("name", "mother_name") holds names, any other one numbers and codes.
absl::Status AddKnown(const std::string& kind, const Json& value, RawRecord& record) {
  std::string text;
  if (value.is_string()) {
    text = value.get<std::string>();
  } else if (value.is_number_integer()) {
    text = value.dump();
  } else {
    return Reject(record.origin, kWrongShape,
                  "\"known\" must hold strings or lists of strings by kind");
  }
  if (kind.find("name") != std::string::npos) {
    record.known.names.push_back(std::move(text));
  } else {
    record.known.others.emplace_back(kind, std::move(text));
  }
  return absl::OkStatus();
}

absl::Status ReadKnown(const Json& document, RawRecord& record) {
  const Json* known = FindField(document, "known");
  if (known == nullptr || known->is_null()) return absl::OkStatus();
  if (!known->is_object()) {
    return Reject(record.origin, kWrongShape,
                  "\"known\" must be an object such as {\"name\": [], \"id\": []}");
  }
  for (const auto& [kind, values] : known->items()) {
    if (values.is_null()) continue;
    if (!values.is_array()) {
      OSLER_RETURN_IF_ERROR(AddKnown(kind, values, record));
      continue;
    }
    for (const Json& value : values) OSLER_RETURN_IF_ERROR(AddKnown(kind, value, record));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RawRecord> ParseChatRecord(const Json& document, const Origin& origin) {
  RawRecord record;
  OSLER_RETURN_IF_ERROR(ReadHead(document, origin, record));
  OSLER_RETURN_IF_ERROR(ReadMessages(document, record));
  OSLER_RETURN_IF_ERROR(ReadKnown(document, record));
  return record;
}

}  // namespace osler
