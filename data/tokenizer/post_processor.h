// The "post_processor" of tokenizer.json for single texts: TemplateProcessing, ByteLevel (which
// adds nothing), and Sequence of these.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/json_part.h"

namespace osler {

struct PostProcessor {
  std::vector<int32_t> front, back;  // ids put before and after the text's own
};

absl::StatusOr<PostProcessor> ParsePostProcessor(const JsonPart& part);  // null: nothing

}  // namespace osler
