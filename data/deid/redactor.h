// Finds and replaces identifiers in one text, then looks again: the working part of the gate.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/deid/known.h"
#include "data/deid/pattern.h"
#include "data/deid/rules.h"

namespace osler {

struct RedactedText {
  std::string text;
  std::map<std::string, int64_t> counts;  // replacements by rule
};

class Redactor {
 public:
  static absl::StatusOr<Redactor> Create(std::vector<RuleSpec> rules);

  // Overlapping findings become one surrogate over their union: that of the longest, of the
  // smallest rank within a rule. The result is searched again, surrogates excepted; what is found
  // there (a replacement can uncover a match) is replaced too, and if something is still found
  // after three rounds the text is refused: a data error that names rule and offset, never the
  // text.
  absl::StatusOr<RedactedText> Redact(std::string_view text, const KnownMatcher& known);

  const std::vector<RuleSpec>& rules() const { return rules_; }

 private:
  explicit Redactor(std::vector<RuleSpec> rules) : rules_(std::move(rules)) {}
  absl::StatusOr<std::vector<Finding>> Search(std::string_view text,
                                              const std::vector<ByteSpan>& surrogates,
                                              const KnownMatcher& known);
  absl::Status SearchRule(size_t rule, const Shadow& shadow, std::vector<Finding>& findings);

  std::vector<RuleSpec> rules_;
  std::vector<std::vector<Pattern>> patterns_;  // by rule
};

// Sorted, disjoint: overlapping findings are merged as Redact says. Exposed for tests.
std::vector<Finding> MergeFindings(std::vector<Finding> findings);

}  // namespace osler
