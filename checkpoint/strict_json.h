// JSON documents of files that may be hostile or damaged: no exceptions, no duplicate keys, bounded
// nesting.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"

namespace osler {

// An error says what is wrong and at which byte, never the text itself.
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text);

}  // namespace osler
