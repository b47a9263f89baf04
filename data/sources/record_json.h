// JSON of one record, stricter than the grammar: a repeated key, nesting deeper than 64 and bytes
// that are not UTF-8 are errors. Messages give the byte in the record, never what stands there.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"
#include "data/record.h"

namespace osler {

// Data errors have no place of their own; callers add file and line. Thread-safe.
absl::StatusOr<nlohmann::json> ParseRecordJson(std::string_view text);

// The same for the record that stands at `origin`: what is wrong rejects it.
absl::StatusOr<nlohmann::json> ParseRow(std::string_view text, const Origin& origin);

}  // namespace osler
