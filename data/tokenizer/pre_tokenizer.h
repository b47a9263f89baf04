// The "pre_tokenizer" of tokenizer.json: Split on a String or Regex, ByteLevel, and Sequence of
// these.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/mapped_text.h"
#include "data/tokenizer/regex.h"

namespace osler {

// Immutable and thread-safe.
class PreTokenizer {
 public:
  static absl::StatusOr<PreTokenizer> Parse(const JsonPart& part);  // null: one word
  // Appends the words of `text` (valid UTF-8), in order, none empty. Data errors are those of
  // Regex::FindAll.
  absl::Status Split(std::string_view text, std::vector<TextRange>& words) const;
  // Whether the model sees the bytes of a word in the byte alphabet (byte_level.h).
  bool byte_level() const { return byte_level_; }

 private:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Step {
    std::string text;            // looked for as it is, or
    std::optional<Regex> regex;  // as a pattern
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;  // what lies between the matches is what was looked for
  };
  struct Part {
    TextRange range;
    bool is_match;
  };
  absl::Status Add(const JsonPart& part, int depth);
  absl::Status AddSplit(const JsonPart& part);
  absl::Status AddByteLevel(const JsonPart& part);
  static absl::Status FindAll(std::string_view text, TextRange word, const Step& step,
                              std::vector<TextRange>& matches);
  static void AppendWords(std::vector<Part>& parts, Behavior behavior, std::vector<TextRange>& out);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace osler
