#include "kernels/cuda/attention_choice.h"

#include <cstdlib>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler {
namespace {

absl::StatusOr<AttentionChoice> Parse(const char* text) {
  if (text == nullptr) return AttentionChoice::kAuto;
  const std::string_view name(text);
  if (name.empty() || name == "auto") return AttentionChoice::kAuto;
  if (name == "sm90") return AttentionChoice::kSm90;
  if (name == "sm80") return AttentionChoice::kSm80;
  if (name == "aten") return AttentionChoice::kAten;
  if (name == "reference") return AttentionChoice::kReference;
  return ConfigError(absl::StrCat("OSLER_ATTENTION is \"", text,
                                  "\"; use auto, sm90, sm80, aten or reference, or unset it"));
}

}  // namespace

absl::StatusOr<AttentionChoice> AttentionChoiceOfEnvironment() {
  static const absl::StatusOr<AttentionChoice> choice = Parse(std::getenv("OSLER_ATTENTION"));
  return choice;
}

}  // namespace osler
