#include "data/deid/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler {
namespace {

constexpr uint64_t kStepsAlways = 1'000'000;
constexpr uint64_t kStepsPerByte = 500;

struct FreePcre2 {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};

int GroupNumber(const pcre2_code* code, const char* name) {
  const int n = pcre2_substring_number_from_name(code, reinterpret_cast<PCRE2_SPTR>(name));
  return n > 0 ? n : -1;
}

}  // namespace

struct Pattern::State {
  std::string expression;
  std::unique_ptr<pcre2_code, FreePcre2> code;
  std::unique_ptr<pcre2_match_data, FreePcre2> data;
  std::unique_ptr<pcre2_match_context, FreePcre2> context;
  int id_group = -1, year_group = -1;

  ByteSpan Group(int group) const {
    const size_t* ends = pcre2_get_ovector_pointer(data.get());
    if (group < 0 || ends[2 * group] == PCRE2_UNSET) return {};
    return {ends[2 * group], ends[2 * group + 1]};
  }
};

Pattern::Pattern(std::unique_ptr<State> state) : state_(std::move(state)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

const std::string& Pattern::expression() const { return state_->expression; }

absl::StatusOr<Pattern> Pattern::Compile(const std::string& expression) {
  auto state = std::make_unique<State>();
  state->expression = expression;
  int error = 0;
  size_t offset = 0;
  state->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()),
                                  expression.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset,
                                  nullptr));
  if (state->code == nullptr) {
    return MakeError(ExitCode::kBug, absl::StrCat("pattern does not compile at ", offset,
                                                  " (PCRE2 error ", error, "): ", expression));
  }
  // Without JIT (a machine that forbids it) the interpreter gives the same matches.
  pcre2_jit_compile(state->code.get(), PCRE2_JIT_COMPLETE);
  state->data.reset(pcre2_match_data_create_from_pattern(state->code.get(), nullptr));
  state->context.reset(pcre2_match_context_create(nullptr));
  if (state->data == nullptr || state->context == nullptr) {
    return MakeError(ExitCode::kBug, "out of memory for a pattern");
  }
  state->id_group = GroupNumber(state->code.get(), "id");
  state->year_group = GroupNumber(state->code.get(), "y");
  return Pattern(std::move(state));
}

absl::StatusOr<bool> Pattern::Find(std::string_view text, size_t from, PatternMatch& match) {
  const uint64_t steps = kStepsAlways + kStepsPerByte * (text.size() - from);
  pcre2_set_match_limit(state_->context.get(),
                        static_cast<uint32_t>(std::min<uint64_t>(steps, UINT32_MAX)));
  const int found =
      pcre2_match(state_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NO_UTF_CHECK, state_->data.get(), state_->context.get());
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) return DataError(absl::StrCat("search gave up (PCRE2 error ", found, ")"));
  match.id = state_->Group(state_->id_group);
  if (match.id == ByteSpan{}) match.id = state_->Group(0);
  match.year = state_->Group(state_->year_group);
  return true;
}

}  // namespace osler
