// tokenizer.json BPE, with the ids of Hugging Face `tokenizers`.
//
// Covers the Gemma kind: added tokens (exact match before everything else, leftmost-longest), normalizer Replace,
// BPE with byte fallback over whole stretches between added tokens (near-linear: linked list and priority queue),
// TemplateProcessing for special tokens, decoder Replace / ByteFallback / Fuse. A part of tokenizer.json this build
// does not know is a config error that names it, never ignored.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

// Whether the tokenizer's own post-processor (BOS, EOS) applies.
enum class SpecialTokens { kNone, kAdd };

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int64_t> begins;  // byte offset in the input where each token starts (added specials: 0)
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(Fs& fs, const std::string& model_directory);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(std::string_view json, const std::string& name);
  ~Tokenizer();

  Encoding Encode(std::string_view text, SpecialTokens special) const;
  // Special tokens are kept. Bytes that are not UTF-8 become U+FFFD, one a byte, as in `tokenizers`.
  std::string Decode(const std::vector<int32_t>& ids) const;

  int64_t vocab_size() const;  // largest id + 1
  // The id of a token's exact text, or -1.
  int32_t IdOf(std::string_view token) const;
  const std::string& digest() const;  // SHA-256 of tokenizer.json

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
