// The "decoder" of tokenizer.json: Replace (String), ByteFallback, ByteLevel, Fuse, Strip, and
// Sequence of these.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/json_part.h"

namespace osler {

// Immutable and thread-safe.
class Decoder {
 public:
  static absl::StatusOr<Decoder> Parse(const JsonPart& part);  // null: tokens joined by spaces
  std::string Decode(std::vector<std::string> tokens) const;

 private:
  enum class Kind { kReplace, kByteFallback, kByteLevel, kFuse, kStrip };
  struct Step {
    Kind kind;
    std::string pattern, content;
    int64_t start = 0, stop = 0;
  };
  absl::Status Add(const JsonPart& part, int depth);

  std::vector<Step> steps_;
  bool none_ = true;
};

}  // namespace osler
