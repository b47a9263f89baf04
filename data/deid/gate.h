// The de-identification gate: the only place where a RawRecord becomes a CleanRecord.
//
// Profile safe_harbor follows 45 CFR 164.514(b)(2)(i): identifiers found by pattern, and those the
// record itself states as known, are replaced by typed surrogates ("[NAME-1]", "[DATE 2019]",
// "[PHONE]"); years, states and allowed three-digit ZIP areas stay. The redacted text is scanned
// once more and a record in which anything is still found is refused: the gate fails closed. Ids
// and subjects of untrusted records become codes that are not derived from them (order of first
// appearance). docs/privacy.md states what is and is not covered.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "configs/schema/build.pb.h"
#include "data/record.h"

namespace osler {

// Replacements by rule name ("date", "phone", "name", …) since the gate was made.
using RuleCounts = std::map<std::string, int64_t>;

// Not thread-safe: codes are handed out in order of first appearance.
class DeidGate {
 public:
  static absl::StatusOr<std::unique_ptr<DeidGate>> Create(const config::Deid& policy);
  ~DeidGate();

  // Takes the record and returns its clean form. Errors are of class data and name rule and offset,
  // never text.
  absl::StatusOr<CleanRecord> Pass(RawRecord raw);
  // The same for many, in order, on `threads` threads; result i is that of record i, and codes and
  // counts are those of Pass called on each in turn.
  std::vector<absl::StatusOr<CleanRecord>> PassAll(std::vector<RawRecord> raws, int threads);

  const RuleCounts& counts() const;
  int64_t records() const;
  // SHA-256 over the profile, its rules and their versions: stands in the certificate.
  std::string PolicyDigest() const;

 private:
  struct State;
  CleanRecord Admit(RawRecord raw, const RuleCounts& found);
  explicit DeidGate(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace osler
