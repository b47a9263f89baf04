#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

// Steps of one match; more only for long texts, where a run of white space is walked back once.
constexpr size_t kMatchLimit = 10'000'000, kStepsPerByte = 8;

PCRE2_SPTR Bytes(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

struct Freed {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

absl::StatusOr<Regex> Regex::Compile(const JsonPart& part) {
  OSLER_ASSIGN_OR_RETURN(const std::string pattern, ToPcre2(part));
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* code =
      pcre2_compile(Bytes(pattern), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
  if (code == nullptr) {
    char text[256] = "";
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text);
    return part.Error(absl::StrCat("not a pattern: ", text));
  }
  Regex made(std::shared_ptr<const pcre2_code>(
      code, [](const pcre2_code* old) { pcre2_code_free(const_cast<pcre2_code*>(old)); }));
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) return part.Error("a pattern that matches nothing at all is not known");
  // Where code cannot be made executable, matching is slower and finds the same.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return made;
}

absl::Status Regex::FindAll(std::string_view text, std::vector<TextRange>& out) const {
  const std::unique_ptr<pcre2_match_data, Freed> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, Freed> context(pcre2_match_context_create(nullptr));
  const size_t limit = std::clamp(text.size() * kStepsPerByte, kMatchLimit, size_t{UINT32_MAX});
  pcre2_set_match_limit(context.get(), static_cast<uint32_t>(limit));
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
  for (size_t at = 0; at < text.size(); at = found[1]) {
    int count = pcre2_match(code_.get(), Bytes(text), text.size(), at, PCRE2_NO_UTF_CHECK,
                            data.get(), context.get());
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its state on the heap
      count = pcre2_match(code_.get(), Bytes(text), text.size(), at,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), context.get());
    }
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) {
      return DataError(
          absl::StrCat("the pre-tokenizer's pattern takes too many steps on a stretch of ",
                       text.size(), " bytes (PCRE2 error ", count, "); split the text"));
    }
    out.emplace_back(found[0], found[1]);
  }
  return absl::OkStatus();
}

}  // namespace osler
