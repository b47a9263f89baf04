// Format tokens_jsonl: {"id", "subject", "input_ids": […], "labels": […]}. Labels are unshifted,
// -100 is no target; without labels every id is one.
#pragma once

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "data/record.h"

namespace osler {

// One line's document as a record.
absl::StatusOr<RawRecord> ParseTokenRecord(const nlohmann::json& document, const Origin& origin);

}  // namespace osler
