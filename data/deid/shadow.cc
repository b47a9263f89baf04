#include "data/deid/shadow.h"

#include <utf8proc.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler {
namespace {

// Letters that Unicode does not decompose but people write in ASCII.
std::string_view PlainLetter(utf8proc_int32_t c) {
  switch (c) {
    case 0xD8: return "O";
    case 0xF8: return "o";
    case 0x141: return "L";
    case 0x142: return "l";
    case 0x110:
    case 0xD0: return "D";
    case 0x111:
    case 0xF0: return "d";
    case 0xDE: return "Th";
    case 0xFE: return "th";
    case 0xC6: return "Ae";
    case 0xE6: return "ae";
    case 0x152: return "Oe";
    case 0x153: return "oe";
    case 0x131: return "i";
    case 0x126: return "H";
    case 0x127: return "h";
    default: return {};
  }
}

bool IsApostrophe(utf8proc_int32_t c) {
  return c == 0x2018 || c == 0x2019 || c == 0x201B || c == 0x2BC || c == 0xB4 || c == 0x2032 ||
         c == 0x2BB || c == 0x60;
}

// Decimal digits stand in Unicode as runs of ten that start at zero.
int DigitValue(utf8proc_int32_t c) {
  utf8proc_int32_t first = c;
  while (c - first < 50 && utf8proc_category(first - 1) == UTF8PROC_CATEGORY_ND) --first;
  return (c - first) % 10;
}

void AppendCodePoint(utf8proc_int32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(c, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

char FoldAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

void AppendAscii(std::string_view ascii, LetterCase letter_case, std::string& out) {
  for (const char c : ascii) out += letter_case == LetterCase::kFold ? FoldAscii(c) : c;
}

// What stands for one character that needs no decomposition; false if it needs it.
bool AppendPlain(utf8proc_int32_t c, LetterCase letter_case, std::string& out) {
  if (c < 0x80 && c != '`') {
    const char ascii = c == '\t' || c == '\v' || c == '\f' ? ' ' : static_cast<char>(c);
    AppendAscii({&ascii, 1}, letter_case, out);
    return true;
  }
  if (IsApostrophe(c)) return out += '\'', true;
  if (const std::string_view plain = PlainLetter(c); !plain.empty()) {
    AppendAscii(plain, letter_case, out);
    return true;
  }
  if (c == 0x2212 || c == 0x2043 || c == 0x30FC) return out += '-', true;
  if (c == 0x85 || c == 0x2028 || c == 0x2029) return out += '\n', true;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME: return true;
    case UTF8PROC_CATEGORY_ZS: return out += ' ', true;
    case UTF8PROC_CATEGORY_PD: return out += '-', true;
    case UTF8PROC_CATEGORY_ND: return out += static_cast<char>('0' + DigitValue(c)), true;
    // "10⁹" is not "109".
    case UTF8PROC_CATEGORY_NO: return AppendCodePoint(c, out), true;
    default: return false;
  }
}

void AppendFolded(utf8proc_int32_t c, LetterCase letter_case, std::string& out) {
  if (AppendPlain(c, letter_case, out)) return;
  int options = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  if (letter_case == LetterCase::kFold) options |= UTF8PROC_CASEFOLD;
  utf8proc_int32_t parts[32];
  int boundary = 0;
  const auto n =
      utf8proc_decompose_char(c, parts, 32, static_cast<utf8proc_option_t>(options), &boundary);
  if (n < 0 || n > 32) return AppendCodePoint(c, out);
  for (utf8proc_ssize_t i = 0; i < n; ++i) {
    if (!AppendPlain(parts[i], letter_case, out)) AppendCodePoint(parts[i], out);
  }
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

}  // namespace

absl::StatusOr<Shadow> Shadow::Make(std::string_view text,
                                    absl::Span<const ByteSpan> protected_spans,
                                    LetterCase letter_case) {
  if (text.size() >= std::numeric_limits<uint32_t>::max()) {
    return DataError("a text of 4 GiB or more cannot be de-identified: split the record");
  }
  Shadow shadow;
  shadow.text_.reserve(text.size());
  const bool same_offsets = protected_spans.empty() && IsAscii(text);
  if (!same_offsets) shadow.offsets_.reserve(text.size() + 1);
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  size_t at = 0;
  auto next_span = protected_spans.begin();
  while (at < text.size()) {
    const size_t start = at;
    if (next_span != protected_spans.end() && at == next_span->begin) {
      shadow.text_ += kProtectedMark;
      at = (next_span++)->end;
    } else {
      utf8proc_int32_t c = 0;
      const auto n =
          utf8proc_iterate(bytes + at, static_cast<utf8proc_ssize_t>(text.size() - at), &c);
      if (n <= 0) return DataError(absl::StrCat("text is not UTF-8 at offset ", at));
      at += static_cast<size_t>(n);
      AppendFolded(c, letter_case, shadow.text_);
    }
    if (!same_offsets) shadow.offsets_.resize(shadow.text_.size(), static_cast<uint32_t>(start));
  }
  if (!same_offsets) shadow.offsets_.push_back(static_cast<uint32_t>(text.size()));
  return shadow;
}

ByteSpan Shadow::Source(size_t begin, size_t end) const {
  if (offsets_.empty()) return {begin, end};
  // A span that ends inside a character that became several takes all of it.
  while (end + 1 < offsets_.size() && offsets_[end] == offsets_[end - 1]) ++end;
  return {offsets_[begin], offsets_[end]};
}

std::string FoldText(std::string_view text) {
  auto shadow = Shadow::Make(text, {}, LetterCase::kFold);
  return shadow.ok() ? shadow->text() : std::string(text);
}

}  // namespace osler
