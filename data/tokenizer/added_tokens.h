// The "added_tokens" of tokenizer.json: tokens found by exact match, before the model sees the
// text.
//
// Those with normalized: false are looked for in the input, the others in what the normalizer made
// of the stretches between them. Matching is leftmost-longest; lstrip, rstrip and single_word act
// on a match as in `tokenizers`.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/flat_map.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/normalizer.h"

namespace osler {

// A stretch of text: an added token, or (id -1) what lies between. With rstrip, a token's white
// space may belong to the next token too, as in `tokenizers`.
struct AddedSpan {
  size_t begin, end;
  int32_t id;
};

// Byte strings by longest match from a given position. Built once, then const.
class TokenTrie {
 public:
  TokenTrie() { root_.fill(0); }
  void Insert(std::string_view bytes, int32_t value);  // the first value of equal strings stays
  // The value of the longest string that text[at…] starts with, or -1; *length is its length.
  int32_t Longest(std::string_view text, size_t at, size_t* length) const;
  bool empty() const { return values_.size() == 1; }

 private:
  uint32_t Child(uint32_t node, uint8_t byte) const;

  std::array<uint32_t, 256> root_;  // most bytes of a text start nothing
  FlatMap children_;                // node << 8 | byte → node
  std::vector<int32_t> values_{-1};
};

// Immutable and thread-safe.
class AddedTokens {
 public:
  static absl::StatusOr<AddedTokens> Parse(const JsonPart& part, const Bpe& bpe,
                                           const Normalizer& normalizer);

  // All of `text`, cut at the tokens that match before (`normalized` false) or after normalisation.
  std::vector<AddedSpan> Split(std::string_view text, bool normalized) const;

  int32_t IdOf(std::string_view content) const;  // -1 if not an added token
  // What decoders see of an added token: its content, normalised if it is matched so (`tokenizers`
  // 0.23). Null if none.
  const std::string* TextOf(int64_t id) const;
  bool IsSpecial(int64_t id) const;
  int64_t id_bound() const { return id_bound_; }

 private:
  struct Token {
    std::string content;
    std::string text;  // content, normalised if `normalized`
    int32_t id = -1;
    bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
    bool operator==(const Token&) const = default;
  };
  static absl::StatusOr<Token> ParseToken(const JsonPart& part);
  absl::Status AddAll(const JsonPart& part, const Bpe& bpe);
  absl::Status BuildTries(const JsonPart& part, const Normalizer& normalizer);

  std::vector<Token> tokens_;
  std::unordered_map<std::string, size_t> by_content_;  // → index in tokens_
  std::unordered_map<int64_t, size_t> by_id_;
  TokenTrie raw_, normalized_;
  int64_t id_bound_ = 0;
};

}  // namespace osler
