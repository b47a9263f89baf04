#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <queue>

#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

constexpr size_t kShort = 32;          // symbols: below, a plain scan beats the queue
constexpr size_t kLongestCached = 48;  // bytes
constexpr uint32_t kGone = ~uint32_t{0};

struct Node {
  int32_t id;
  uint32_t begin, previous, next;  // indexes; kGone at the ends
  bool alive;
};

// A merge waiting to happen. Ranks first, then positions: the order of `tokenizers`.
struct Candidate {
  uint32_t rank, at;
  int32_t made;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

using Queue = std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;

}  // namespace

// Remembers where in the output the tokens of a recent piece of text (a word, or a part of one that
// no merge leaves) stand. Direct-mapped, for one call.
class Bpe::Cache {
 public:
  explicit Cache(std::string_view text) : text_(text) {
    size_t size = 64;
    while (size < text.size() / 8 && size < 16384) size *= 2;
    entries_.resize(size);
  }
  struct Entry {
    uint32_t begin = 0, size = 0;   // the piece, in the text
    uint32_t first = 0, count = 0;  // its tokens, in the output
  };
  // Where the tokens of the piece are, or are to be put down. Null: too long to be kept.
  Entry* Find(TextRange piece) {
    const size_t size = piece.second - piece.first;
    if (size > kLongestCached) return nullptr;
    return &entries_[Hash(text_.substr(piece.first, size)) & (entries_.size() - 1)];
  }
  // Appends the tokens of the piece to `out` if the entry has them.
  bool Copy(Entry* entry, TextRange piece, std::vector<Symbol>& out) const {
    const uint32_t begin = static_cast<uint32_t>(piece.first);
    const size_t size = piece.second - piece.first;
    if (entry == nullptr || entry->count == 0 || entry->size != size ||
        text_.substr(entry->begin, size) != text_.substr(begin, size)) {
      return false;
    }
    for (uint32_t i = 0; i < entry->count; ++i) {
      const Symbol known = out[entry->first + i];
      out.push_back({known.id, known.begin - entry->begin + begin});
    }
    return true;
  }
  // Puts down that the tokens of the piece are out[first…].
  static void Keep(Entry* entry, TextRange piece, size_t first, const std::vector<Symbol>& out) {
    if (entry == nullptr) return;
    *entry = {static_cast<uint32_t>(piece.first), static_cast<uint32_t>(piece.second - piece.first),
              static_cast<uint32_t>(first), static_cast<uint32_t>(out.size() - first)};
  }

 private:
  static size_t Hash(std::string_view piece) { return std::hash<std::string_view>()(piece); }

  std::string_view text_;
  std::vector<Entry> entries_;
};

int32_t Bpe::IdOf(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

const std::string* Bpe::TextOf(int64_t id) const {
  if (id < 0 || id >= id_bound() || present_[static_cast<size_t>(id)] == 0) return nullptr;
  return &texts_[static_cast<size_t>(id)];
}

int32_t Bpe::CharacterId(char32_t code) const {
  if (code < 0x80) return ascii_[code];
  const uint64_t id = characters_.Find(code);
  return id == FlatMap::kNone ? -1 : static_cast<int32_t>(id);
}

bool Bpe::AppendBytes(std::string_view character, uint32_t begin, std::vector<Symbol>& out) const {
  if (!byte_fallback_) return false;
  for (char byte : character) {
    if (bytes_[static_cast<uint8_t>(byte)] < 0) return false;
  }
  for (size_t i = 0; i < character.size(); ++i) {
    out.push_back({bytes_[static_cast<uint8_t>(character[i])], begin + static_cast<uint32_t>(i)});
  }
  return true;
}

// The id of the symbol at text[at], or -1; moves `at` behind it.
int32_t Bpe::SymbolAt(std::string_view text, size_t& at) const {
  if (alphabet_ == Alphabet::kBytes) return byte_symbols_[static_cast<uint8_t>(text[at++])];
  return CharacterId(NextCodePoint(text, at));
}

// As `tokenizers` does: unknown characters wait (and fuse) until the next known one; byte tokens do
// not end the wait. Without an unknown token they vanish.
bool Bpe::Symbols(std::string_view text, TextRange word, std::vector<Symbol>& out) const {
  bool waiting = false, in_order = true;
  Symbol unknown{unk_id_, 0};
  for (size_t at = word.first; at < word.second;) {
    const size_t begin = at;
    const int32_t id = SymbolAt(text, at);
    if (id >= 0) {
      if (waiting) out.push_back(unknown);
      waiting = false;
      out.push_back({id, static_cast<uint32_t>(begin)});
      continue;
    }
    if (AppendBytes(text.substr(begin, at - begin), static_cast<uint32_t>(begin), out)) continue;
    if (unk_id_ < 0 || (waiting && fuse_unk_)) continue;
    if (waiting) out.push_back(unknown);
    waiting = true;
    in_order = false;
    unknown.begin = static_cast<uint32_t>(begin);
  }
  if (waiting) out.push_back(unknown);
  return in_order;
}

size_t Bpe::MergeShort(Symbol* chunk, size_t size) const {
  uint64_t merges[kShort];
  for (size_t i = 0; i + 1 < size; ++i) merges[i] = MergeOf(chunk[i].id, chunk[i + 1].id);
  while (size > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i) {
      if (merges[i] >> 32 < merges[best] >> 32) best = i;
    }
    if (merges[best] == FlatMap::kNone) break;
    chunk[best].id = static_cast<int32_t>(merges[best] & 0xFFFFFFFFu);
    for (size_t i = best + 1; i + 1 < size; ++i) {
      chunk[i] = chunk[i + 1];
      merges[i - 1] = merges[i];
    }
    --size;
    if (best > 0) merges[best - 1] = MergeOf(chunk[best - 1].id, chunk[best].id);
    if (best + 1 < size) merges[best] = MergeOf(chunk[best].id, chunk[best + 1].id);
  }
  return size;
}

size_t Bpe::MergeLong(Symbol* chunk, size_t size) const {
  std::vector<Node> nodes(size);
  std::vector<Candidate> waiting;
  const auto candidate = [&](uint32_t at, uint32_t next) {
    const uint64_t merge = MergeOf(nodes[at].id, nodes[next].id);
    return Candidate{static_cast<uint32_t>(merge >> 32), at,
                     merge == FlatMap::kNone ? -1 : static_cast<int32_t>(merge & 0xFFFFFFFFu)};
  };
  for (uint32_t i = 0; i < size; ++i) {
    nodes[i] = {chunk[i].id, chunk[i].begin, i == 0 ? kGone : i - 1, i + 1 == size ? kGone : i + 1,
                true};
    if (i == 0) continue;
    if (const Candidate made = candidate(i - 1, i); made.made >= 0) waiting.push_back(made);
  }
  Queue queue(std::greater<>(), std::move(waiting));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Node& node = nodes[top.at];
    if (!node.alive || node.next == kGone) continue;
    Node& right = nodes[node.next];
    // An entry whose pair has changed since is out of date.
    if (candidate(top.at, node.next).made != top.made) continue;
    node.id = top.made;
    right.alive = false;
    node.next = right.next;
    if (node.next != kGone) {
      nodes[node.next].previous = top.at;
      if (const Candidate made = candidate(top.at, node.next); made.made >= 0) queue.push(made);
    }
    if (node.previous != kGone) {
      if (const Candidate made = candidate(node.previous, top.at); made.made >= 0) queue.push(made);
    }
  }
  size_t count = 0;
  for (uint32_t at = 0; at != kGone; at = nodes[at].next)
    chunk[count++] = {nodes[at].id, nodes[at].begin};
  return count;
}

size_t Bpe::MergeChunk(Symbol* chunk, size_t size) const {
  if (size == 1) return 1;
  return size <= kShort ? MergeShort(chunk, size) : MergeLong(chunk, size);
}

int32_t Bpe::WholeWord(std::string_view word) const {
  if (!ignore_merges_) return -1;
  if (alphabet_ == Alphabet::kCharacters) return IdOf(word);
  const auto found = words_.find(word);
  return found == words_.end() ? -1 : found->second;
}

bool Bpe::EncodeWord(std::string_view text, TextRange word, Cache& cache,
                     std::vector<Symbol>& symbols, std::vector<Symbol>& out) const {
  if (const int32_t id = WholeWord(text.substr(word.first, word.second - word.first)); id >= 0) {
    out.push_back({id, static_cast<uint32_t>(word.first)});
    return true;
  }
  symbols.clear();
  const bool in_order = Symbols(text, word, symbols);
  for (size_t begin = 0, end = 0; begin < symbols.size(); begin = end) {
    end = begin + 1;
    while (end < symbols.size() && CanCross(symbols[end - 1].id, symbols[end].id)) ++end;
    // With ignore_merges a word and a part of one that looks the same may differ in their tokens.
    const bool part =
        in_order && !ignore_merges_ && end - begin > 1 && end - begin < symbols.size();
    const TextRange piece = {symbols[begin].begin,
                             end == symbols.size() ? word.second : symbols[end].begin};
    Cache::Entry* entry = part ? cache.Find(piece) : nullptr;
    if (cache.Copy(entry, piece, out)) continue;
    const size_t first = out.size(), count = MergeChunk(&symbols[begin], end - begin);
    out.insert(out.end(), symbols.begin() + static_cast<ptrdiff_t>(begin),
               symbols.begin() + static_cast<ptrdiff_t>(begin + count));
    Cache::Keep(entry, piece, first, out);
  }
  return in_order;
}

void Bpe::Encode(std::string_view text, const std::vector<TextRange>& words,
                 std::vector<Symbol>& out) const {
  Cache cache(text);
  std::vector<Symbol> symbols;
  for (const TextRange& word : words) {
    Cache::Entry* entry = cache.Find(word);
    if (cache.Copy(entry, word, out)) continue;
    const size_t first = out.size();
    const bool in_order = EncodeWord(text, word, cache, symbols, out);
    if (in_order) Cache::Keep(entry, word, first, out);
  }
}

}  // namespace osler
