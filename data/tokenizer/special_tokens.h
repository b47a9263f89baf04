// The special tokens that a model directory names (bos_token, eos_token, …), outside
// tokenizer.json.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/tokenizer/json_part.h"

namespace osler {

// The JSON object in a file of the directory; an empty one if the file is absent. Config errors.
absl::StatusOr<Json> ReadConfigObject(Fs& fs, const std::string& path);

// A special token's text in `config`: "x" or {"content": "x", …}; empty if absent.
std::string TokenText(const Json& config, const std::string& name);

// The same from DIR/tokenizer_config.json, else DIR/special_tokens_map.json; config error if
// neither has it.
absl::StatusOr<std::string> SpecialToken(Fs& fs, const std::string& directory,
                                         const std::string& name);

}  // namespace osler
