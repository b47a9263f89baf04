// Characters and written names, as the search for known identifiers needs them. Pure functions,
// thread-safe.
#pragma once

#include <utf8proc.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace osler {

// kIdeograph: a letter of a script written without spaces, where a name has no word boundary.
enum class CharKind { kOther, kLetter, kDigit, kIdeograph };

CharKind KindOf(utf8proc_int32_t c);
bool IsCapital(utf8proc_int32_t c);
// The character at byte `at` of valid UTF-8 (0 at the end), and its size.
utf8proc_int32_t CharAt(std::string_view text, size_t at, size_t* size = nullptr);
utf8proc_int32_t CharBefore(std::string_view text, size_t at);
size_t CountChars(std::string_view text);
bool HasDigit(std::string_view text);
// Whether a match may begin or end between `outside` and `inside`.
bool IsBoundary(utf8proc_int32_t outside, utf8proc_int32_t inside);

// A word of a name: its letters and digits, and where separators stood in it.
struct NameWord {
  std::string letters;
  std::vector<size_t> marks;       // offsets in `letters`
  std::vector<std::string> parts;  // between the separators, if there are any
};

NameWord ParseNameWord(std::string_view folded);
// The words of a folded name without titles ("dr", "jr").
std::vector<NameWord> ParseName(std::string_view folded);
// The name, and its German and Scandinavian spellings with and without umlauts.
std::vector<std::string> NameSpellings(const std::string& name);

}  // namespace osler
