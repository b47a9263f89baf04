// tokenizer.json BPE, with the ids of Hugging Face `tokenizers` (docs/tokenizer.md).
//
// Covers the Gemma kind: added tokens (exact match before everything else, leftmost-longest),
// normalizers Replace, Prepend and NFC, pre-tokenizer Split, BPE with byte fallback over whole
// stretches between added tokens (near-linear), TemplateProcessing for special tokens, decoders
// Replace / ByteFallback / Fuse / Strip. A part of tokenizer.json this build does not know is a
// config error that names it, never ignored; only "truncation" and "padding" are: they speak of
// batches that others make, and transformers resets them too.
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

// The longest text that Encode takes: offsets inside are 32-bit, and normalizers make text longer.
inline constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int64_t>
      begins;  // byte offset in the input where each token starts (added specials: 0)
  int64_t front = 0,
          back = 0;  // how many of the ids the post-processor put before and after the text's own
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(Fs& fs,
                                                         const std::string& model_directory);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(std::string_view json,
                                                          const std::string& name);
  ~Tokenizer();

  // `text` has at most kMaxTextBytes. Ill-formed UTF-8 is read as U+FFFD, one for each maximal
  // ill-formed part.
  Encoding Encode(std::string_view text, SpecialTokens special) const;
  // Special tokens are kept, ids of no token are skipped. Byte tokens that are not UTF-8 become
  // U+FFFD, one a byte, as in `tokenizers`. The result is valid UTF-8.
  std::string Decode(const std::vector<int32_t>& ids) const;

  int64_t vocab_size() const;  // largest id + 1
  // The id of a token's exact text, or -1.
  int32_t IdOf(std::string_view token) const;
  // An added token marked special, which transformers' decode leaves out with skip_special_tokens.
  bool IsSpecial(int32_t id) const;
  const std::string& digest() const;  // SHA-256 of tokenizer.json

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
