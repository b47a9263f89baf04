// Text on its way through a tokenizer, with the byte of the original input that each of its bytes
// came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace osler {

using TextRange = std::pair<size_t, size_t>;  // [begin, end) in bytes

struct MappedText {
  std::string text;              // valid UTF-8
  std::vector<uint32_t> origin;  // one offset a byte of `text`; empty: byte i came from base + i
  uint32_t base = 0;

  uint32_t OriginOf(size_t at) const {
    return origin.empty() ? base + static_cast<uint32_t>(at) : origin[at];
  }
  // Bytes [begin, end) with their origins.
  MappedText Slice(size_t begin, size_t end) const;
  // Appends bytes that all came from `from`.
  void Append(std::string_view bytes, uint32_t from);
  // Appends source.text[begin, end) with its origins.
  void AppendFrom(const MappedText& source, size_t begin, size_t end);
};

// `input` itself, or with U+FFFD for each maximal ill-formed part if it is not UTF-8.
MappedText ToMappedText(std::string_view input);

}  // namespace osler
