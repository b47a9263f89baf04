#include "data/tokenizer/json_part.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

const Json& Null() {
  static const Json null;
  return null;
}

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

JsonPart JsonPart::at(const char* key) const {
  const bool top = where.size() > 1 && where.substr(where.size() - 2) == ": ";
  std::string name = absl::StrCat(where, top ? "" : ".", key);
  return {has(key) ? &(*value)[key] : &Null(), std::move(name)};
}

JsonPart JsonPart::at(size_t index) const {
  return {&(*value)[index], absl::StrCat(where, "[", index, "]")};
}

absl::Status JsonPart::Error(std::string_view message) const {
  const bool top = where.size() > 1 && where.substr(where.size() - 2) == ": ";
  return ConfigError(absl::StrCat(where, top ? "" : ": ", View(message)));
}

absl::StatusOr<Json> ParseJson(std::string_view text, const std::string& name) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    return ConfigError(absl::StrCat(name, ": not valid JSON at byte ", error.byte,
                                    "; the file is damaged or incomplete, copy it again"));
  } catch (const std::exception&) {
    return ConfigError(absl::StrCat(name, ": not valid JSON"));
  }
}

absl::Status ExpectObject(const JsonPart& part, std::initializer_list<std::string_view> keys) {
  if (!part.value->is_object()) return part.Error("must be a JSON object");
  for (const auto& [key, unused] : part.value->items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      return part.Error(
          absl::StrCat("unknown key \"", key, "\": this build does not know what it means"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExpectString(const JsonPart& part) {
  if (!part.value->is_string()) return part.Error("must be a string");
  return part.value->get_ref<const std::string&>();
}

absl::StatusOr<bool> ExpectBool(const JsonPart& part) {
  if (!part.value->is_boolean()) return part.Error("must be true or false");
  return part.value->get<bool>();
}

absl::StatusOr<int64_t> ExpectInteger(const JsonPart& part, int64_t low, int64_t high) {
  const absl::Status bad = part.Error(absl::StrCat("must be an integer from ", low, " to ", high));
  if (!part.value->is_number_integer()) return bad;
  if (part.value->is_number_unsigned() &&
      part.value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return bad;
  }
  const int64_t number = part.value->get<int64_t>();
  if (number < low || number > high) return bad;
  return number;
}

absl::Status ExpectArray(const JsonPart& part) {
  return part.value->is_array() ? absl::OkStatus() : part.Error("must be a list");
}

absl::StatusOr<std::string> TypeOf(const JsonPart& part) {
  if (!part.value->is_object()) return part.Error("must be a JSON object or null");
  return ExpectString(part.at("type"));
}

absl::StatusOr<std::string> ExpectStringPattern(const JsonPart& part) {
  if (part.has("Regex")) return part.Error("Regex patterns are not supported by this build");
  OSLER_RETURN_IF_ERROR(ExpectObject(part, {"String"}));
  OSLER_ASSIGN_OR_RETURN(std::string pattern, ExpectString(part.at("String")));
  if (pattern.empty()) return part.Error("must not be empty");
  return pattern;
}

}  // namespace osler
