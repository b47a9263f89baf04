// Finding the fields of one record's JSON document, and checks that say what is wrong without
// repeating it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/record.h"

namespace osler {

// Sets id, subject and origin from a line's document. Both may be strings or integers.
absl::Status ReadHead(const nlohmann::json& document, const Origin& origin, RawRecord& record);

// The member called `name`, or null.
const nlohmann::json* FindField(const nlohmann::json& object, const char* name);

// What `path` names: a member with exactly this name, else step by step at the dots through objects
// and, by number from 0, lists ("context.contexts", "answers.text.0"). Null if there is none.
const nlohmann::json* FindPath(const nlohmann::json& row, const std::string& path);

// `field "PATH" is missing`, with the member of `row` whose name is nearest if one is near: names
// that do not resemble what the configuration asks for are not repeated, they could be text.
std::string MissingField(const nlohmann::json& row, const std::string& path);

// A text as it is, a number or a boolean as JSON writes it, a list of these joined by line breaks;
// for anything else the error says what the value is.
absl::StatusOr<std::string> TextOf(const nlohmann::json& value);

// Adds every {"role", "content"} of `list` to the record; `name` is the list's, for errors.
absl::Status ReadMessages(const nlohmann::json& list, const std::string& name, RawRecord& record);

// Adds the text or integer `value`, or each of a list of them; null adds nothing. A kind with
// "name" in it ("name", "mother_name") holds names, any other one numbers and codes.
absl::Status ReadKnownValues(const std::string& kind, const nlohmann::json& values,
                             RawRecord& record);

}  // namespace osler
