#include "data/sources/fields.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

absl::Status ReadName(const nlohmann::json& document, const char* name, const Origin& origin,
                      std::string& value) {
  const nlohmann::json* field = FindField(document, name);
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

}  // namespace

const nlohmann::json* FindField(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

absl::Status ReadHead(const nlohmann::json& document, const Origin& origin, RawRecord& record) {
  record.origin = origin;
  if (!document.is_object()) return Reject(origin, kWrongShape, "the line must be a JSON object");
  OSLER_RETURN_IF_ERROR(ReadName(document, "id", origin, record.id));
  return ReadName(document, "subject", origin, record.subject);
}

}  // namespace osler
