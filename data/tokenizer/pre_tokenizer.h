// The "pre_tokenizer" of tokenizer.json: Split on a string, and Sequence of Splits.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/json_part.h"

namespace osler {

using TextRange = std::pair<size_t, size_t>;  // [begin, end) in bytes

// Immutable and thread-safe.
class PreTokenizer {
 public:
  static absl::StatusOr<PreTokenizer> Parse(const JsonPart& part);  // null: one word
  // The words of `text`, in order, none empty.
  std::vector<TextRange> Split(std::string_view text) const;

 private:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Step {
    std::string pattern;
    Behavior behavior;
  };
  absl::Status Add(const JsonPart& part, int depth);
  static void SplitWord(std::string_view text, TextRange word, const Step& step,
                        std::vector<TextRange>& out);

  std::vector<Step> steps_;
};

}  // namespace osler
