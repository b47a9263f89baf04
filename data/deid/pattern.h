// One compiled regular expression (PCRE2, UTF, Unicode properties, JIT).
//
// Matching is bounded: a search over n bytes may take at most a fixed number of backtracking steps
// a byte, then it is a data error, so that no input makes the gate slower than linear. Not
// thread-safe (match state is kept).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "data/deid/shadow.h"

namespace osler {

// Spans within the searched text. `id` is the part that identifies: the group "id", or the whole
// match without one. `year` is the group "y", empty if there is none.
struct PatternMatch {
  ByteSpan id, year;
};

class Pattern {
 public:
  // A pattern that does not compile is a bug class error that names it (patterns are ours, not the
  // user's).
  static absl::StatusOr<Pattern> Compile(const std::string& expression);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  // The first match at or after `from`; false if there is none. `text` must be valid UTF-8.
  absl::StatusOr<bool> Find(std::string_view text, size_t from, PatternMatch& match);
  const std::string& expression() const;

 private:
  struct State;
  explicit Pattern(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
