#include "data/sources/fields.h"

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "configs/suggest.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

using Json = nlohmann::json;

absl::Status ReadName(const Json& document, const char* name, const Origin& origin,
                      std::string& value) {
  const Json* field = FindField(document, name);
  if (field == nullptr)
    return Reject(origin, kWrongShape, absl::StrCat("\"", name, "\" is missing"));
  if (field->is_number_integer()) {
    value = field->dump();
    return absl::OkStatus();
  }
  if (!field->is_string()) {
    return Reject(origin, kWrongShape,
                  absl::StrCat("\"", name, "\" must be a string or an integer"));
  }
  value = field->get_ref<const std::string&>();
  if (value.empty()) return Reject(origin, kWrongShape, absl::StrCat("\"", name, "\" is empty"));
  return absl::OkStatus();
}

bool IsRole(const std::string& role) {
  return role == "system" || role == "user" || role == "assistant";
}

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

// One step of a path; null if it leads nowhere.
const Json* Step(const Json& value, const std::string& name) {
  if (value.is_object()) return FindField(value, name.c_str());
  size_t index = 0;
  if (!value.is_array() || !absl::SimpleAtoi(name, &index) || index >= value.size()) return nullptr;
  return &value[index];
}

bool IsScalar(const Json& value) { return value.is_primitive() && !value.is_null(); }

}  // namespace

const Json* FindField(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

absl::Status ReadHead(const Json& document, const Origin& origin, RawRecord& record) {
  record.origin = origin;
  if (!document.is_object()) return Reject(origin, kWrongShape, "the line must be a JSON object");
  OSLER_RETURN_IF_ERROR(ReadName(document, "id", origin, record.id));
  return ReadName(document, "subject", origin, record.subject);
}

const Json* FindPath(const Json& row, const std::string& path) {
  if (!row.is_object()) return nullptr;
  if (const Json* whole = FindField(row, path.c_str()); whole != nullptr) return whole;
  const Json* value = &row;
  for (const absl::string_view name : absl::StrSplit(path, '.')) {
    value = Step(*value, std::string(name));
    if (value == nullptr) return nullptr;
  }
  return value;
}

std::string MissingField(const Json& row, const std::string& path) {
  std::string why = absl::StrCat("field \"", path, "\" is missing");
  std::vector<std::string> names;
  if (row.is_object()) {
    for (const auto& [name, value] : row.items()) names.push_back(name);
  }
  if (const std::string near = NearestName(path, names); !near.empty())
    absl::StrAppend(&why, "; did you mean \"", near, "\"?");
  return why;
}

absl::StatusOr<std::string> TextOf(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (IsScalar(value)) return value.dump();
  if (value.is_null()) return DataError("is null");
  if (value.is_object()) return DataError("is an object; name a member of it (FIELD.MEMBER)");
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    if (!IsScalar(value[i])) return DataError("is a list that holds more than texts and numbers");
    if (i > 0) text += '\n';
    text += value[i].is_string() ? value[i].get_ref<const std::string&>() : value[i].dump();
  }
  return text;
}

absl::Status ReadMessages(const Json& list, const std::string& name, RawRecord& record) {
  const auto reject = [&](const std::string& why) {
    return Reject(record.origin, kWrongShape, why);
  };
  if (!list.is_array()) return reject(absl::StrCat("\"", name, "\" must be a list"));
  if (list.empty()) return reject(absl::StrCat("\"", name, "\" is empty"));
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = absl::StrCat("message ", i + 1);
    const Json& message = list[i];
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

absl::Status ReadKnownValues(const std::string& kind, const Json& values, RawRecord& record) {
  if (values.is_null()) return absl::OkStatus();
  if (!values.is_array()) return AddKnown(kind, values, record);
  for (const Json& value : values) OSLER_RETURN_IF_ERROR(AddKnown(kind, value, record));
  return absl::OkStatus();
}

}  // namespace osler
