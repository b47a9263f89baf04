// Text out of ids as they come, for generation: each piece is given as soon as no later id can
// change it.
//
// The pieces are those of `tokenizers`' DecodeStream: bytes of a character that is not complete
// wait, and a character U+FFFD waits with them, since the next byte may be the one that was
// missing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace osler {

// One use, one thread. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // The text that `id` completes; often empty.
  std::string Push(int32_t id);
  // What is still held back, U+FFFD where bytes are missing. All pieces and this one together are
  // Decode of all ids, unless these hold byte tokens that are no UTF-8.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<int32_t>
      ids_;             // the last complete piece's, which decide on spaces, and those waiting
  std::string before_;  // what the first `complete_` of them give alone
  size_t complete_ = 0;
};

}  // namespace osler
