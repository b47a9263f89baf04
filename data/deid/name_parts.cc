#include "data/deid/name_parts.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/deid/shadow.h"
#include "data/deid/words.h"

namespace osler {
namespace {

bool IsIdeograph(utf8proc_int32_t c) {
  return (c >= 0x0E00 && c <= 0x0EFF) || (c >= 0x1000 && c <= 0x109F) ||
         (c >= 0x2E80 && c <= 0xD7FF) || (c >= 0xF900 && c <= 0xFAFF) || c >= 0x20000;
}

}  // namespace

CharKind KindOf(utf8proc_int32_t c) {
  if (c < 0x80) {
    if (c >= '0' && c <= '9') return CharKind::kDigit;
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ? CharKind::kLetter : CharKind::kOther;
  }
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MC: return IsIdeograph(c) ? CharKind::kIdeograph : CharKind::kLetter;
    case UTF8PROC_CATEGORY_ND: return CharKind::kDigit;
    default: return CharKind::kOther;
  }
}

utf8proc_int32_t CharAt(std::string_view text, size_t at, size_t* size) {
  utf8proc_int32_t c = 0;
  if (size != nullptr) *size = 1;
  if (at >= text.size()) return 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                  static_cast<utf8proc_ssize_t>(text.size() - at), &c);
  if (n > 0 && size != nullptr) *size = static_cast<size_t>(n);
  return n > 0 ? c : 0;
}

utf8proc_int32_t CharBefore(std::string_view text, size_t at) {
  if (at == 0) return 0;
  --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return CharAt(text, at);
}

bool IsCapital(utf8proc_int32_t c) {
  const auto category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LT;
}

size_t CountChars(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

bool HasDigit(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool IsBoundary(utf8proc_int32_t outside, utf8proc_int32_t inside) {
  const CharKind kind = KindOf(inside);
  return kind == CharKind::kIdeograph || kind != KindOf(outside);
}

NameWord ParseNameWord(std::string_view text) {
  NameWord word;
  std::string part;
  bool separated = false;
  size_t size = 1;
  for (size_t at = 0; at < text.size(); at += size) {
    if (KindOf(CharAt(text, at, &size)) == CharKind::kOther) {
      separated = true;
      continue;
    }
    if (separated && !word.letters.empty()) {
      word.marks.push_back(word.letters.size());
      word.parts.push_back(std::exchange(part, ""));
    }
    separated = false;
    word.letters.append(text, at, size);
    part.append(text, at, size);
  }
  if (!word.parts.empty()) word.parts.push_back(part);
  return word;
}

std::vector<NameWord> ParseName(std::string_view folded) {
  std::vector<NameWord> words;
  for (size_t at = 0; at < folded.size();) {
    const size_t end = std::min(folded.find_first_of(" ,;\n/()\"", at), folded.size());
    NameWord word = ParseNameWord(folded.substr(at, end - at));
    if (!word.letters.empty() && !IsNameTitle(word.letters)) words.push_back(std::move(word));
    at = end + 1;
  }
  return words;
}

std::vector<std::string> NameSpellings(const std::string& name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kExpanded = {
      {{"ä", "ae"},
       {"ö", "oe"},
       {"ü", "ue"},
       {"Ä", "Ae"},
       {"Ö", "Oe"},
       {"Ü", "Ue"},
       {"å", "aa"},
       {"Å", "Aa"}}};
  std::string expanded = name;
  for (const auto& [from, to] : kExpanded) {
    for (size_t at = 0; (at = expanded.find(from, at)) != std::string::npos; at += to.size()) {
      expanded.replace(at, from.size(), to);
    }
  }
  std::string contracted = FoldText(name);
  for (size_t at = 0; at + 2 < contracted.size(); ++at) {
    const std::string_view pair = std::string_view(contracted).substr(at, 2);
    const bool before_consonant =
        std::string_view("bcdfghjklmnpqrstvwxz").find(contracted[at + 2]) != std::string_view::npos;
    if ((pair == "ae" || pair == "oe" || pair == "ue") && before_consonant &&
        contracted.size() > 5) {
      contracted.erase(at + 1, 1);
    }
  }
  std::vector<std::string> all = {name};
  if (expanded != name) all.push_back(expanded);
  if (contracted != FoldText(name)) all.push_back(contracted);
  return all;
}

}  // namespace osler
