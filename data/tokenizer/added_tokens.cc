#include "data/tokenizer/added_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

// Ends of runs of white space. Remembers the last run: matches inside it do not walk it again.
class SpaceRuns {
 public:
  explicit SpaceRuns(std::string_view text) : text_(text) {}
  size_t EndOfRun(size_t at) {
    if (at >= begin_ && at <= end_) return end_;
    begin_ = end_ = at;
    for (size_t next = at; next < text_.size();) {
      if (!IsWhiteSpace(NextCodePoint(text_, next))) break;
      end_ = next;
    }
    return end_;
  }

 private:
  std::string_view text_;
  size_t begin_ = 1, end_ = 0;
};

}  // namespace

uint32_t TokenTrie::Child(uint32_t node, uint8_t byte) const {
  const uint64_t child = children_.Find(uint64_t{node} << 8 | byte);
  return child == FlatMap::kNone ? 0 : static_cast<uint32_t>(child);
}

void TokenTrie::Insert(std::string_view bytes, int32_t value) {
  uint32_t node = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(bytes[i]);
    uint32_t child = i == 0 ? root_[byte] : Child(node, byte);
    if (child == 0) {
      child = static_cast<uint32_t>(values_.size());
      values_.push_back(-1);
      if (i == 0) {
        root_[byte] = child;
      } else {
        children_.Set(uint64_t{node} << 8 | byte, child);
      }
    }
    node = child;
  }
  if (values_[node] < 0) values_[node] = value;
}

int32_t TokenTrie::Longest(std::string_view text, size_t at, size_t* length) const {
  int32_t best = -1;
  uint32_t node = root_[static_cast<uint8_t>(text[at])];
  for (size_t end = at + 1; node != 0; ++end) {
    if (values_[node] >= 0) {
      best = values_[node];
      *length = end - at;
    }
    if (end == text.size()) break;
    node = Child(node, static_cast<uint8_t>(text[end]));
  }
  return best;
}

absl::StatusOr<AddedTokens::Token> AddedTokens::ParseToken(const JsonPart& part) {
  OSLER_RETURN_IF_ERROR(ExpectObject(
      part, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  Token token;
  OSLER_ASSIGN_OR_RETURN(token.content, ExpectString(part.at("content")));
  OSLER_ASSIGN_OR_RETURN(const int64_t id, ExpectInteger(part.at("id"), 0, INT32_MAX));
  token.id = static_cast<int32_t>(id);
  OSLER_ASSIGN_OR_RETURN(token.single_word, ExpectBool(part.at("single_word")));
  OSLER_ASSIGN_OR_RETURN(token.lstrip, ExpectBool(part.at("lstrip")));
  OSLER_ASSIGN_OR_RETURN(token.rstrip, ExpectBool(part.at("rstrip")));
  OSLER_ASSIGN_OR_RETURN(token.normalized, ExpectBool(part.at("normalized")));
  OSLER_ASSIGN_OR_RETURN(token.special, ExpectBool(part.at("special")));
  return token;
}

// `tokenizers` gives an added token the vocabulary's id or else the next free one, and only warns
// when the file says something else; then ids would not be what the file says, so it is an error
// here.
absl::Status AddedTokens::AddAll(const JsonPart& part, const Bpe& bpe) {
  int64_t largest = -1;
  for (size_t i = 0; i < part.value->size(); ++i) {
    OSLER_ASSIGN_OR_RETURN(const Token token, ParseToken(part.at(i)));
    if (token.content.empty()) continue;
    if (const auto known = by_content_.find(token.content); known != by_content_.end()) {
      if (tokens_[known->second] == token) continue;
      return part.at(i).Error(absl::StrCat("\"", token.content, "\" is listed twice, differently"));
    }
    int64_t id = bpe.IdOf(token.content);
    if (id < 0) id = largest >= bpe.size() ? largest + 1 : bpe.size();
    if (id != token.id) {
      return part.at(i).Error(
          absl::StrCat("\"", token.content, "\" says id ", token.id,
                       " but follows the vocabulary and the tokens before it with id ", id,
                       "; list added tokens by id, without holes"));
    }
    largest = std::max(largest, id);
    if (!by_id_.emplace(id, tokens_.size()).second) {
      return part.at(i).Error(absl::StrCat("id ", id, " belongs to two tokens"));
    }
    by_content_.emplace(token.content, tokens_.size());
    tokens_.push_back(token);
  }
  id_bound_ = largest + 1;
  return absl::OkStatus();
}

absl::Status AddedTokens::BuildTries(const JsonPart& part, const Normalizer& normalizer) {
  for (const bool special : {true, false}) {  // the order in which equal patterns win
    for (size_t i = 0; i < tokens_.size(); ++i) {
      Token& token = tokens_[i];
      if (token.special != special) continue;
      token.text =
          token.normalized ? normalizer.Apply(ToMappedText(token.content)).text : token.content;
      if (token.text.empty()) {
        return part.Error(absl::StrCat("\"", token.content, "\" is empty after normalisation"));
      }
      (token.normalized ? normalized_ : raw_).Insert(token.text, static_cast<int32_t>(i));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedTokens> AddedTokens::Parse(const JsonPart& part, const Bpe& bpe,
                                               const Normalizer& normalizer) {
  AddedTokens added;
  if (part.is_null()) return added;
  OSLER_RETURN_IF_ERROR(ExpectArray(part));
  OSLER_RETURN_IF_ERROR(added.AddAll(part, bpe));
  OSLER_RETURN_IF_ERROR(added.BuildTries(part, normalizer));
  return added;
}

std::vector<AddedSpan> AddedTokens::Split(std::string_view text, bool normalized) const {
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  std::vector<AddedSpan> spans;
  size_t done = 0, length = 0;
  SpaceRuns spaces(text);
  for (size_t at = 0; !trie.empty() && at < text.size();) {
    const int32_t match = trie.Longest(text, at, &length);
    if (match < 0) {
      ++at;
      continue;
    }
    const Token& token = tokens_[static_cast<size_t>(match)];
    size_t begin = at, end = at + length;
    at = end;
    if (token.single_word) {
      size_t next = end;
      const bool joined = (begin > 0 && IsWord(LastCodePoint(text, begin))) ||
                          (end < text.size() && IsWord(NextCodePoint(text, next)));
      if (joined) continue;
    }
    if (token.lstrip) {
      while (begin > done && IsWhiteSpace(LastCodePoint(text, begin))) {
        do --begin;
        while ((static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80);
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip) end = spaces.EndOfRun(end);
    if (done < begin) spans.push_back({done, begin, -1});
    spans.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), -1});
  return spans;
}

int32_t AddedTokens::IdOf(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? -1 : tokens_[found->second].id;
}

bool AddedTokens::IsSpecial(int64_t id) const {
  const auto found = by_id_.find(id);
  return found != by_id_.end() && tokens_[found->second].special;
}

const std::string* AddedTokens::TextOf(int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second].text;
}

}  // namespace osler
