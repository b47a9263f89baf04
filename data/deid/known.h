// Exact removal of identifiers that a record itself states: the subject's names and numbers.
//
// Names are found in any case, with or without accents, hyphens and apostrophes, in either order,
// with initials, and part by part as whole words; numbers with or without separators. Built per
// record; immutable; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/deid/shadow.h"
#include "data/record.h"

namespace osler {

// Something to replace: source bytes, the rule that found it, what to put there.
struct Finding {
  ByteSpan span;
  std::string rule;
  std::string surrogate;
  int rank = 0;  // of findings with the same extent the smallest rank wins; known identifiers have
                 // the smallest
};

class KnownMatcher {
 public:
  // `record_ids` are the record's own id and subject, taken as known when they can be told from
  // words (five characters or more, one a digit). Data error (without the value) for a value of
  // more than 256 bytes.
  static absl::StatusOr<KnownMatcher> Create(const KnownIdentifiers& known,
                                             const std::vector<std::string>& record_ids);
  // Findings in `folded` (a kFold shadow of `source`), in no order, possibly overlapping.
  std::vector<Finding> Find(std::string_view source, const Shadow& folded) const;

 private:
  // Which separators may stand between two characters of a form.
  enum class Gaps { kMarked, kAnywhere };
  struct Form {
    std::string letters;        // folded, letters and digits only
    std::vector<size_t> marks;  // offsets in `letters` where separators may stand
    Gaps gaps = Gaps::kMarked;
    bool capital_only = false;  // a common word: only where the text has it with a capital
    bool plural = false;        // a following "s" belongs to it
    bool is_name = false;
    int number = 0;  // n of [NAME-n] or [ID-n]
  };
  struct Squeezed;
  struct Hit;
  void AddName(const std::string& name, int number);
  void AddId(const std::string& value, int number);
  void AddTail(const std::string& value, int number);
  void AddForm(Form form);
  void FindForm(const Form& form, const Squeezed& text, std::string_view source,
                const Shadow& folded, std::vector<Hit>& hits) const;
  std::vector<Form> forms_;
  // First letters of each name's words, by name number - 1.
  std::vector<std::string> initials_;
};

}  // namespace osler
