// Format tokens_jsonl: {"id", "subject", "input_ids": […], "labels": […]}. Labels are unshifted,
// -100 is no target; without labels every id is one.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "data/sources/json_lines.h"
#include "data/sources/source.h"

namespace osler {

std::unique_ptr<Source> MakeTokensJsonl(JsonLines lines, bool trusted);

// One line's document as a record.
absl::StatusOr<RawRecord> ParseTokenRecord(const nlohmann::json& document, const Origin& origin);

}  // namespace osler
