// The text of a sequence while its tokens come: what is certain so far, up to a stop string.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace osler {

// Special tokens are left out of the text. Not thread-safe; tokenizer and stops must outlive it.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : tokenizer_(tokenizer), stops_(stops) {}

  // Text that became certain: whole characters that belong to no beginning of a stop string.
  std::string Append(int32_t id);
  // A stop string is complete; no text from it on is ever given out.
  bool stopped() const { return stopped_; }
  // What Append held back.
  std::string Finish();
  // The text of all ids, as a whole, up to the first stop string.
  std::string text() const;

 private:
  std::string Decoded(size_t from, size_t to) const;
  size_t StopOf(const std::string& text) const;
  std::string Release(size_t keep);

  const Tokenizer& tokenizer_;
  const std::vector<std::string>& stops_;
  std::vector<int32_t> ids_;
  // ids_[prefix_, read_) are decoded and again in front of the next ones, because a decoder may
  // treat the first token of a text in its own way.
  size_t prefix_ = 0, read_ = 0;
  std::string held_;  // decoded, not yet given out
  bool stopped_ = false;
};

}  // namespace osler
