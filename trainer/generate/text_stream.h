// The text of a sequence while its tokens come: what is certain so far, up to a stop string.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer/stream_decoder.h"
#include "data/tokenizer/tokenizer.h"

namespace osler {

// Special tokens are left out of the text. Not thread-safe; tokenizer and stops must outlive it.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : tokenizer_(tokenizer), decoder_(tokenizer), stops_(stops) {}

  // Text that became certain: whole characters that belong to no beginning of a stop string.
  std::string Append(int32_t id);
  // A stop string is complete; no text from it on is ever given out.
  bool stopped() const { return stopped_; }
  // What Append held back.
  std::string Finish();
  // The text of all ids, as a whole, up to the first stop string.
  std::string text() const;

 private:
  size_t StopOf(const std::string& text) const;
  std::string Release(size_t keep);

  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
  const std::vector<std::string>& stops_;
  std::vector<int32_t> ids_;
  std::string held_;  // decoded, not yet given out
  bool stopped_ = false;
};

}  // namespace osler
