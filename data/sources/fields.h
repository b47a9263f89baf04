// What the JSON formats have in common: id, subject, and checks that say what is wrong without
// repeating it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "data/record.h"

namespace osler {

// Sets id, subject, origin and trusted from a line's document. Both may be strings or integers.
absl::Status ReadHead(const nlohmann::json& document, const Origin& origin, RawRecord& record);

// The member called `name`, or null.
const nlohmann::json* FindField(const nlohmann::json& object, const char* name);

}  // namespace osler
