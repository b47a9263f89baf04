#include "model/config_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler {
namespace {

using nlohmann::json;

const json& EmptyObject() {
  static const json empty = json::object();
  return empty;
}

// The value as JSON, cut short: a configuration's value may stand in a message, a page of it may
// not.
std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60) text = absl::StrCat(text.substr(0, 57), "...");
  return text;
}

}  // namespace

absl::StatusOr<json> ParseConfigJson(std::string_view text, const std::string& file) {
  try {
    json root = json::parse(text);
    if (root.is_object()) return root;
    return ConfigError(absl::StrCat(file, ": is not a JSON object but ", root.type_name()));
  } catch (const json::parse_error& error) {
    const size_t end = std::min(text.size(), error.byte);
    const auto line =
        1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(end), '\n');
    return ConfigError(
        absl::StrCat(file, ":", line, ": is not valid JSON (byte ", error.byte, ")"));
  } catch (const std::exception& error) {
    return ConfigError(absl::StrCat(file, ": cannot be read as JSON: ", error.what()));
  }
}

ConfigReader::ConfigReader(const json& object, std::string file, std::string path)
    : object_(object), file_(std::move(file)), path_(std::move(path)) {}

const json* ConfigReader::Find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigReader::Has(const char* key) const { return Find(key) != nullptr; }

bool ConfigReader::IsNull(const char* key) const {
  return object_.contains(key) && object_[key].is_null();
}

void ConfigReader::Fail(const char* key, std::string_view message) {
  if (status_.ok())
    status_ = ConfigError(absl::StrCat(file_, ": \"", path_, key, "\" ", std::string(message)));
}

void ConfigReader::Merge(const ConfigReader& other) {
  if (status_.ok()) status_ = other.status_;
}

void ConfigReader::WrongType(const char* key, const json& value, std::string_view wanted) {
  Fail(key, absl::StrCat("is ", Shown(value), ", but must be ", std::string(wanted)));
}

int64_t ConfigReader::Int(const char* key, int64_t fallback, int64_t min, int64_t max) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() &&
                      value->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()});
  const int64_t number = fits ? value->get<int64_t>() : 0;
  if (fits && number >= min && number <= max) return number;
  WrongType(key, *value, absl::StrCat("an integer from ", min, " to ", max));
  return fallback;
}

double ConfigReader::Number(const char* key, double fallback) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_number() && std::isfinite(value->get<double>())) return value->get<double>();
  WrongType(key, *value, "a number");
  return fallback;
}

double ConfigReader::Positive(const char* key, double fallback) {
  const double number = Number(key, fallback);
  if (number > 0) return number;
  WrongType(key, *Find(key), "a number above 0");
  return fallback;
}

bool ConfigReader::Bool(const char* key, bool fallback) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  WrongType(key, *value, "true or false");
  return fallback;
}

std::string ConfigReader::String(const char* key, const std::string& fallback) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  WrongType(key, *value, "a string");
  return fallback;
}

std::vector<std::string> ConfigReader::Strings(const char* key) {
  const json* value = Find(key);
  std::vector<std::string> strings;
  if (value == nullptr) return strings;
  const bool good =
      value->is_array() &&
      std::all_of(value->begin(), value->end(), [](const json& item) { return item.is_string(); });
  if (!good) {
    WrongType(key, *value, "a list of strings");
    return strings;
  }
  for (const json& item : *value) strings.push_back(item.get<std::string>());
  return strings;
}

ConfigReader ConfigReader::Object(const char* key) {
  const json* value = Find(key);
  if (value != nullptr && !value->is_object()) WrongType(key, *value, "an object");
  const bool usable = value != nullptr && value->is_object();
  return {usable ? *value : EmptyObject(), file_, absl::StrCat(path_, key, ".")};
}

std::vector<std::string> ConfigReader::Keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object_.items()) keys.push_back(key);
  return keys;
}

}  // namespace osler
