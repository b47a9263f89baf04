#include "data/deid/redactor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr int kRounds = 3;

size_t Length(const Finding& finding) { return finding.span.end - finding.span.begin; }

// A text with the spans of the surrogates in it.
struct Draft {
  std::string text;
  std::vector<ByteSpan> surrogates;
};

// Replaces `findings` (sorted, disjoint) in `draft`. A surrogate inside a finding goes with it.
Draft Replace(const Draft& draft, const std::vector<Finding>& findings) {
  Draft next;
  size_t at = 0;
  auto old = draft.surrogates.begin();
  const auto copy_to = [&](size_t end) {
    for (; old != draft.surrogates.end() && old->begin < end; ++old) {
      if (old->begin < at) continue;
      const size_t begin = next.text.size() + old->begin - at;
      next.surrogates.push_back({begin, begin + old->end - old->begin});
    }
    next.text.append(draft.text, at, end - at);
  };
  for (const Finding& finding : findings) {
    copy_to(finding.span.begin);
    next.surrogates.push_back({next.text.size(), next.text.size() + finding.surrogate.size()});
    next.text += finding.surrogate;
    at = finding.span.end;
  }
  copy_to(draft.text.size());
  return next;
}

}  // namespace

std::vector<Finding> MergeFindings(std::vector<Finding> findings) {
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    if (a.span.begin != b.span.begin) return a.span.begin < b.span.begin;
    if (a.span.end != b.span.end) return a.span.end > b.span.end;
    return a.rank < b.rank;
  });
  std::vector<Finding> merged;
  size_t longest = 0;  // of the findings merged into the last one
  for (Finding& finding : findings) {
    if (merged.empty() || finding.span.begin >= merged.back().span.end) {
      longest = Length(finding);
      merged.push_back(std::move(finding));
      continue;
    }
    const ByteSpan all = {merged.back().span.begin,
                          std::max(merged.back().span.end, finding.span.end)};
    // A known name keeps its number when a title or a label has found more of it.
    const bool same_rule = finding.rule == merged.back().rule;
    const bool better = same_rule && finding.rank != merged.back().rank
                            ? finding.rank < merged.back().rank
                            : Length(finding) > longest;
    longest = std::max(longest, Length(finding));
    if (better) merged.back() = std::move(finding);
    merged.back().span = all;
  }
  return merged;
}

absl::StatusOr<Redactor> Redactor::Create(std::vector<RuleSpec> rules) {
  Redactor redactor(std::move(rules));
  for (const RuleSpec& rule : redactor.rules_) {
    std::vector<Pattern> patterns;
    for (const std::string& expression : rule.patterns) {
      OSLER_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Compile(expression));
      patterns.push_back(std::move(pattern));
    }
    redactor.patterns_.push_back(std::move(patterns));
  }
  return redactor;
}

absl::Status Redactor::SearchRule(size_t rule, const Shadow& shadow,
                                  std::vector<Finding>& findings) {
  const RuleSpec& spec = rules_[rule];
  const std::string_view searched = shadow.text();
  for (Pattern& pattern : patterns_[rule]) {
    PatternMatch match;
    for (size_t from = 0; from < searched.size(); from = std::max(match.id.end, from + 1)) {
      // A step of one byte may not land inside a character.
      while (from < searched.size() && (static_cast<unsigned char>(searched[from]) & 0xC0) == 0x80)
        ++from;
      const auto found = pattern.Find(searched, from, match);
      if (!found.ok()) {
        return Annotate(found.status(), absl::StrCat("rule ", spec.name, " at offset ",
                                                     shadow.Source(from, from + 1).begin));
      }
      if (!*found) break;
      if (match.id.begin == match.id.end) continue;
      const ByteSpan span = shadow.Source(match.id.begin, match.id.end);
      const auto part = [&](ByteSpan s) { return searched.substr(s.begin, s.end - s.begin); };
      findings.push_back({span, spec.name, spec.surrogate(part(match.id), part(match.year)),
                          static_cast<int>(rule) + 1});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Finding>> Redactor::Search(std::string_view text,
                                                      const std::vector<ByteSpan>& surrogates,
                                                      const KnownMatcher& known) {
  OSLER_ASSIGN_OR_RETURN(const Shadow folded, Shadow::Make(text, surrogates, LetterCase::kFold));
  std::vector<Finding> findings = known.Find(text, folded);
  OSLER_ASSIGN_OR_RETURN(const Shadow shadow, Shadow::Make(text, surrogates, LetterCase::kKeep));
  for (size_t rule = 0; rule < rules_.size(); ++rule) {
    OSLER_RETURN_IF_ERROR(SearchRule(rule, shadow, findings));
  }
  return MergeFindings(std::move(findings));
}

absl::StatusOr<RedactedText> Redactor::Redact(std::string_view text, const KnownMatcher& known) {
  RedactedText result;
  Draft draft{std::string(text), {}};
  for (int round = 0;; ++round) {
    OSLER_ASSIGN_OR_RETURN(const std::vector<Finding> findings,
                           Search(draft.text, draft.surrogates, known));
    if (findings.empty()) break;
    if (round == kRounds) {
      return DataError(absl::StrCat("rule ", findings.front().rule,
                                    " still finds something at offset ",
                                    findings.front().span.begin, " of the redacted text"));
    }
    for (const Finding& finding : findings) ++result.counts[finding.rule];
    draft = Replace(draft, findings);
  }
  result.text = std::move(draft.text);
  return result;
}

}  // namespace osler
