// UTF-8 and the few character classes that tokenizers and templates speak of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace osler {

// Length of the UTF-8 sequence that begins at text[at], or 0 if none does; then *skip is the length
// of the maximal ill-formed part, ≥ 1, that one U+FFFD stands for (Unicode 15, §3.9; Python's
// errors="replace" does).
size_t Utf8Length(std::string_view text, size_t at, size_t* skip = nullptr);
bool IsUtf8(std::string_view text);

// The code point at text[at] of valid UTF-8; moves `at` behind it.
char32_t NextCodePoint(std::string_view text, size_t& at);
// The code point that ends just before text[at], at > 0, of valid UTF-8.
char32_t LastCodePoint(std::string_view text, size_t at);
void AppendUtf8(char32_t code, std::string& out);

bool IsWhiteSpace(char32_t code);   // Unicode White_Space: `\s` of Rust's regex
bool IsPythonSpace(char32_t code);  // str.isspace(): what Jinja's trim removes
bool IsWord(char32_t code);         // `\w` of Rust's regex

// `text` without Python white space at its ends.
std::string_view TrimPythonSpace(std::string_view text, bool left = true, bool right = true);

}  // namespace osler
