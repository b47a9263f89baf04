// The "normalizer" of tokenizer.json: Replace (String), Prepend, NFC, and Sequence of these.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/mapped_text.h"

namespace osler {

// Immutable and thread-safe. Origins survive: a replacement's bytes all come from the start of what
// they replace.
class Normalizer {
 public:
  static absl::StatusOr<Normalizer> Parse(const JsonPart& part);  // null: does nothing
  MappedText Apply(MappedText text) const;

 private:
  enum class Kind { kReplace, kPrepend, kNfc };
  struct Step {
    Kind kind;
    std::string pattern, content;
  };
  absl::Status Add(const JsonPart& part, int depth);

  std::vector<Step> steps_;  // Sequences flattened
};

}  // namespace osler
