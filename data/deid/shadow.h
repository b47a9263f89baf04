// The form of a text in which identifiers are looked for: what a reader takes for the same
// character is the same character there. Full-width and other scripts' digits are ASCII digits,
// every dash is "-", every space " ", every apostrophe "'"; accents, zero-width characters and soft
// hyphens are gone. Positions lead back to the source text.
//
// Immutable value types; thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace osler {

// Bytes [begin, end).
struct ByteSpan {
  size_t begin = 0, end = 0;
  bool operator==(const ByteSpan&) const = default;
};

enum class LetterCase { kKeep, kFold };

// Stands for a protected span (a surrogate already put in): no rule matches it, none sees what it
// covers.
inline constexpr char kProtectedMark = '\x01';

class Shadow {
 public:
  // `protected_spans` are sorted, disjoint byte spans of `text`. Data error with the offset if it
  // is not UTF-8.
  static absl::StatusOr<Shadow> Make(std::string_view text,
                                     absl::Span<const ByteSpan> protected_spans,
                                     LetterCase letter_case);

  const std::string& text() const { return text_; }
  // The source bytes of shadow bytes [begin, end), begin < end, with the marks that follow them.
  ByteSpan Source(size_t begin, size_t end) const;

 private:
  std::string text_;
  // Where in the source the character behind each shadow byte starts, and the source's size at the
  // end; empty when the two texts have the same offsets.
  std::vector<uint32_t> offsets_;
};

// `text` folded as a kFold shadow, for values that are searched. Not UTF-8: returned as it is.
std::string FoldText(std::string_view text);

}  // namespace osler
