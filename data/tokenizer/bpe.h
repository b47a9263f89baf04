// The "model" of tokenizer.json: byte-pair encoding as `tokenizers` does it (Sennrich et al., arXiv
// 1508.07909).
//
// Every character, or every byte, of a word is a symbol; the adjacent pair of lowest rank (leftmost
// among equals) merges until none is left. Gemma runs this over whole stretches of text without
// splitting into words, so it must be near-linear: a word is first cut where no merge of this
// vocabulary can ever reach across (exact, found from the merges when loading), a word or a cut
// seen before in the same text is copied, and a long one uses a linked list and a priority queue.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/flat_map.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/mapped_text.h"

namespace osler {

// A token id and the byte where it begins.
struct Symbol {
  int32_t id;
  uint32_t begin;
};

// What the vocabulary is spelled in: the characters of the text, or the byte alphabet
// (byte_level.h).
enum class Alphabet { kCharacters, kBytes };

// Immutable and thread-safe.
class Bpe {
 public:
  static absl::StatusOr<Bpe> Parse(const JsonPart& part, Alphabet alphabet);
  Bpe(Bpe&&) = default;
  Bpe& operator=(Bpe&&) = default;

  // Appends the tokens of the words of `text` (valid UTF-8, less than 4 GiB), which stand in order
  // and do not overlap. Begins are bytes of `text`.
  void Encode(std::string_view text, const std::vector<TextRange>& words,
              std::vector<Symbol>& out) const;

  int32_t IdOf(std::string_view token) const;  // -1 if absent
  // The token's text; null if no token has this id.
  const std::string* TextOf(int64_t id) const;
  int64_t size() const { return static_cast<int64_t>(ids_.size()); }        // tokens
  int64_t id_bound() const { return static_cast<int64_t>(texts_.size()); }  // largest id + 1

 private:
  class Cache;
  explicit Bpe(Alphabet alphabet) : alphabet_(alphabet) {}
  absl::Status ReadOptions(const JsonPart& part);
  absl::Status ReadVocabulary(const JsonPart& part);
  absl::Status ReadMerges(const JsonPart& part);
  absl::Status AddMerge(const JsonPart& merges, size_t index, std::string_view left,
                        std::string_view right);
  absl::Status FindSpecials(const JsonPart& part);
  void FindCrossings();
  void FindWords();

  // These two say false if unknown tokens were needed: they may stand out of order.
  bool Symbols(std::string_view text, TextRange word, std::vector<Symbol>& out) const;
  bool EncodeWord(std::string_view text, TextRange word, Cache& cache, std::vector<Symbol>& symbols,
                  std::vector<Symbol>& out) const;
  int32_t SymbolAt(std::string_view text, size_t& at) const;
  int32_t WholeWord(std::string_view word) const;
  bool AppendBytes(std::string_view character, uint32_t begin, std::vector<Symbol>& out) const;
  int32_t CharacterId(char32_t code) const;
  bool CanCross(int32_t left, int32_t right) const {
    return !chunked_ || crossings_.Contains(PairKey(left, right));
  }
  uint64_t MergeOf(int32_t left, int32_t right) const { return merges_.Find(PairKey(left, right)); }
  size_t MergeChunk(Symbol* chunk, size_t size) const;
  size_t MergeShort(Symbol* chunk, size_t size) const;
  size_t MergeLong(Symbol* chunk, size_t size) const;

  Alphabet alphabet_;
  std::string unk_token_;
  bool has_unk_ = false, fuse_unk_ = false, byte_fallback_ = false, ignore_merges_ = false;
  int32_t unk_id_ = -1;
  std::array<int32_t, 256> bytes_{};                   // id of <0xXX>, or -1
  std::array<int32_t, 256> byte_symbols_{};            // kBytes: id of the token of one byte, or -1
  std::array<int32_t, 128> ascii_{};                   // id of a one-character token, or -1
  FlatMap characters_;                                 // the same for other code points
  std::vector<std::string> texts_;                     // by id
  std::vector<uint8_t> present_;                       // by id: ids need not be dense
  std::unordered_map<std::string_view, int32_t> ids_;  // views of texts_
  std::vector<std::string> spelled_;                   // kBytes with ignore_merges: by id
  std::unordered_map<std::string_view, int32_t> words_;  // views of spelled_
  FlatMap merges_;                                       // (left, right) → rank << 32 | new id
  FlatMap crossings_;                               // pairs of characters that some merge joins
  std::vector<std::pair<int32_t, int32_t>> pairs_;  // the merges, while loading
  bool chunked_ = true;
};

}  // namespace osler
