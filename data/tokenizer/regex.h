// The Regex patterns of tokenizer.json, with the matches that `tokenizers` finds.
//
// `tokenizers` matches with Oniguruma, this build with PCRE2; a pattern is accepted only if it is
// written with what both read alike: literal characters, escapes of them, \s \S \p{L} \p{N} alone
// and in [classes], groups (?:…), look-ahead (?=…) (?!…), alternatives, * + ? {n,m}, and (?i:…)
// around ASCII words. Classes are spelled out to Oniguruma's (Unicode 16), which has letters that
// PCRE2 10.42 does not know.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/mapped_text.h"

struct pcre2_real_code_8;

namespace osler {

// Immutable and thread-safe.
class Regex {
 public:
  // `part` is the string of the pattern. Config errors name it and what is not known.
  static absl::StatusOr<Regex> Compile(const JsonPart& part);
  // Appends the matches in `text` (valid UTF-8), leftmost first, none empty, none overlapping. A
  // data error if the pattern needs too many steps on this text.
  absl::Status FindAll(std::string_view text, std::vector<TextRange>& out) const;

 private:
  explicit Regex(std::shared_ptr<const pcre2_real_code_8> code) : code_(std::move(code)) {}
  std::shared_ptr<const pcre2_real_code_8> code_;
};

// The same pattern for PCRE2 (UTF and UCP on). Config errors name `part`.
absl::StatusOr<std::string> ToPcre2(const JsonPart& part);

}  // namespace osler
