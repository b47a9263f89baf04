#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/byte_level.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

// Ids may have holes, but a stray huge one must not cost memory.
constexpr int64_t kMaxHoles = int64_t{1} << 20;

absl::Status RefuseUnlessEmpty(const JsonPart& part) {
  if (part.is_null()) return absl::OkStatus();
  if (part.value->is_string() && part.value->get_ref<const std::string&>().empty()) {
    return absl::OkStatus();
  }
  return part.Error("is not supported by this build");
}

absl::StatusOr<bool> OptionalBool(const JsonPart& part) {
  if (part.is_null()) return false;
  return ExpectBool(part);
}

std::string Shown(std::string_view token) {
  return absl::StrCat("\"", absl::string_view(token.data(), token.size()), "\"");
}

}  // namespace

absl::Status Bpe::ReadOptions(const JsonPart& part) {
  OSLER_RETURN_IF_ERROR(ExpectObject(
      part, {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
             "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  if (part.has("type")) {
    OSLER_ASSIGN_OR_RETURN(const std::string type, TypeOf(part));
    if (type != "BPE") {
      return part.Error(absl::StrCat("unknown model \"", type, "\": this build knows BPE"));
    }
  }
  const JsonPart dropout = part.at("dropout");
  if (!dropout.is_null() && !(dropout.value->is_number() && dropout.value->get<double>() == 0.0)) {
    return dropout.Error("BPE dropout is not supported: set it to null");
  }
  OSLER_RETURN_IF_ERROR(RefuseUnlessEmpty(part.at("continuing_subword_prefix")));
  OSLER_RETURN_IF_ERROR(RefuseUnlessEmpty(part.at("end_of_word_suffix")));
  OSLER_ASSIGN_OR_RETURN(fuse_unk_, OptionalBool(part.at("fuse_unk")));
  OSLER_ASSIGN_OR_RETURN(byte_fallback_, OptionalBool(part.at("byte_fallback")));
  OSLER_ASSIGN_OR_RETURN(ignore_merges_, OptionalBool(part.at("ignore_merges")));
  if (byte_fallback_ && alphabet_ == Alphabet::kBytes) {
    return part.at("byte_fallback").Error("has no meaning with the pre-tokenizer ByteLevel");
  }
  if (!part.at("unk_token").is_null()) {
    OSLER_ASSIGN_OR_RETURN(unk_token_, ExpectString(part.at("unk_token")));
    has_unk_ = true;
  }
  return absl::OkStatus();
}

absl::Status Bpe::ReadVocabulary(const JsonPart& part) {
  if (!part.value->is_object()) return part.Error("must be an object from token to id");
  const int64_t count = static_cast<int64_t>(part.value->size());
  int64_t bound = 0;
  for (const auto& [token, id] : part.value->items()) {
    const JsonPart entry{&id, absl::StrCat(part.where, "[", Shown(token), "]")};
    OSLER_ASSIGN_OR_RETURN(const int64_t number, ExpectInteger(entry, 0, INT32_MAX));
    if (number > 16 * count + kMaxHoles) {
      return entry.Error(absl::StrCat("id ", number, " is far beyond the ", count, " tokens"));
    }
    bound = std::max(bound, number + 1);
  }
  texts_.resize(static_cast<size_t>(bound));
  present_.resize(static_cast<size_t>(bound));
  ids_.reserve(static_cast<size_t>(count));
  for (const auto& [token, id] : part.value->items()) {
    const size_t number = id.get<size_t>();
    if (present_[number] != 0) {
      return part.Error(absl::StrCat("id ", number, " belongs to two tokens, ",
                                     Shown(texts_[number]), " and ", Shown(token)));
    }
    present_[number] = 1;
    texts_[number] = token;
    ids_.emplace(texts_[number], static_cast<int32_t>(number));
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerge(const JsonPart& merges, size_t index, std::string_view left,
                           std::string_view right) {
  const std::string joined = std::string(left).append(right);
  const int32_t a = IdOf(left), b = IdOf(right), made = IdOf(joined);
  if (a < 0 || b < 0 || made < 0) {
    const std::string_view missing = a < 0 ? left : b < 0 ? right : joined;
    return merges.at(index).Error(
        absl::StrCat("merge of a token that is not in the vocabulary: ", Shown(missing)));
  }
  const uint64_t rank = pairs_.size();  // a pair listed twice has its last rank, as in `tokenizers`
  merges_.Set(PairKey(a, b), rank << 32 | static_cast<uint32_t>(made));
  pairs_.emplace_back(a, b);
  return absl::OkStatus();
}

absl::Status Bpe::ReadMerges(const JsonPart& part) {
  OSLER_RETURN_IF_ERROR(ExpectArray(part));
  if (part.value->size() >= UINT32_MAX) return part.Error("too many merges");
  merges_.Reserve(part.value->size());
  pairs_.reserve(part.value->size());
  for (size_t i = 0; i < part.value->size(); ++i) {
    const Json& merge = (*part.value)[i];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      OSLER_RETURN_IF_ERROR(AddMerge(part, i, merge[0].get_ref<const std::string&>(),
                                     merge[1].get_ref<const std::string&>()));
      continue;
    }
    if (!merge.is_string()) return part.at(i).Error("must be [\"a\", \"b\"] or \"a b\"");
    const std::string_view line = merge.get_ref<const std::string&>();
    if (line.substr(0, 8) == "#version") continue;  // the header of merges.txt
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return part.at(i).Error("must be two tokens with one space between them");
    }
    OSLER_RETURN_IF_ERROR(AddMerge(part, i, line.substr(0, space), line.substr(space + 1)));
  }
  return absl::OkStatus();
}

// Characters, byte tokens and the unknown token.
absl::Status Bpe::FindSpecials(const JsonPart& part) {
  ascii_.fill(-1);
  bytes_.fill(-1);
  for (const auto& [text, id] : ids_) {
    if (text.empty()) continue;
    size_t at = 0;
    const char32_t code = NextCodePoint(text, at);
    if (at != text.size()) continue;
    if (code < 0x80) {
      ascii_[code] = id;
    } else {
      characters_.Set(code, static_cast<uint64_t>(id));
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    byte_symbols_[static_cast<size_t>(byte)] =
        CharacterId(CharacterOfByte(static_cast<uint8_t>(byte)));
  }
  bool all_bytes = byte_fallback_;
  for (int byte = 0; byte_fallback_ && byte < 256; ++byte) {
    bytes_[static_cast<size_t>(byte)] = IdOf(absl::StrFormat("<0x%02X>", byte));
    all_bytes = all_bytes && bytes_[static_cast<size_t>(byte)] >= 0;
  }
  if (has_unk_) {
    unk_id_ = IdOf(unk_token_);
    // With all bytes at hand the unknown token is never wanted.
    if (unk_id_ < 0 && !all_bytes) {
      return part.at("unk_token")
          .Error(absl::StrCat(Shown(unk_token_), " is not in the vocabulary"));
    }
  }
  return absl::OkStatus();
}

// A merge joins two neighbouring characters for good: the last of its left part and the first of
// its right part. Two characters that no merge joins are never in one token, so the text may be cut
// between them.
void Bpe::FindCrossings() {
  std::vector<uint8_t> fallback(texts_.size());
  for (const int32_t id : bytes_) {
    if (id >= 0) fallback[static_cast<size_t>(id)] = 1;
  }
  if (unk_id_ >= 0) fallback[static_cast<size_t>(unk_id_)] = 1;
  for (const auto& [left, right] : pairs_) {
    // A fallback symbol's text is not the characters it stands for, so the argument does not hold.
    if (fallback[static_cast<size_t>(left)] != 0 || fallback[static_cast<size_t>(right)] != 0) {
      chunked_ = false;
      break;
    }
    const std::string &a = texts_[static_cast<size_t>(left)],
                      &b = texts_[static_cast<size_t>(right)];
    if (a.empty() || b.empty()) continue;
    size_t at = 0;
    const int32_t last = CharacterId(LastCodePoint(a, a.size()));
    const int32_t first = CharacterId(NextCodePoint(b, at));
    if (last >= 0 && first >= 0) crossings_.Set(PairKey(last, first), 1);
  }
  pairs_ = {};
}

// Words are looked up by their bytes, not by their spelling in the byte alphabet.
void Bpe::FindWords() {
  if (alphabet_ != Alphabet::kBytes || !ignore_merges_) return;
  spelled_.resize(texts_.size());
  words_.reserve(ids_.size());
  for (const auto& [text, id] : ids_) {
    std::string& bytes = spelled_[static_cast<size_t>(id)];
    if (SpellBytes(text, bytes)) words_.emplace(bytes, id);
  }
}

absl::StatusOr<Bpe> Bpe::Parse(const JsonPart& part, Alphabet alphabet) {
  Bpe bpe(alphabet);
  OSLER_RETURN_IF_ERROR(bpe.ReadOptions(part));
  OSLER_RETURN_IF_ERROR(bpe.ReadVocabulary(part.at("vocab")));
  OSLER_RETURN_IF_ERROR(bpe.FindSpecials(part));
  OSLER_RETURN_IF_ERROR(bpe.ReadMerges(part.at("merges")));
  bpe.FindCrossings();
  bpe.FindWords();
  return bpe;
}

}  // namespace osler
