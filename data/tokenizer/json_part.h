// Strict reading of the parts of tokenizer.json: every helper returns a config error that names
// file and part.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace osler {

using Json = nlohmann::json;

// A part of a JSON document and what to call it in messages ("DIR/tokenizer.json:
// model.merges[3]").
struct JsonPart {
  const Json* value;
  std::string where;

  bool is_null() const { return value->is_null(); }
  bool has(const char* key) const { return value->is_object() && value->contains(key); }
  // The member, or null if absent. `this` must be an object.
  JsonPart at(const char* key) const;
  JsonPart at(size_t index) const;
  absl::Status Error(std::string_view message) const;
};

// The document, or a config error with the byte where parsing stopped. The text's UTF-8 is checked
// too.
absl::StatusOr<Json> ParseJson(std::string_view text, const std::string& name);

// An object whose keys are all in `keys`.
absl::Status ExpectObject(const JsonPart& part, std::initializer_list<std::string_view> keys);
absl::StatusOr<std::string> ExpectString(const JsonPart& part);
absl::StatusOr<bool> ExpectBool(const JsonPart& part);
absl::StatusOr<int64_t> ExpectInteger(const JsonPart& part, int64_t low, int64_t high);
absl::Status ExpectArray(const JsonPart& part);
// The member "type" of an object.
absl::StatusOr<std::string> TypeOf(const JsonPart& part);
// {"String": "…"}; the Regex form is refused by name.
absl::StatusOr<std::string> ExpectStringPattern(const JsonPart& part);

}  // namespace osler
