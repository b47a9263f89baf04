// Text with the names of fields in braces: "{CONTEXTS}\n\nQuestion: {QUESTION}".
//
// "{name}" stands for the value of a field, "{name?}" for one that may be missing or null (nothing
// then), "{{" and "}}" for braces. A name is anything without braces; what it finds in a record is
// data/sources/fields.h's matter.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace osler {

struct TemplatePart {
  enum class Kind { kText, kField, kOptionalField };
  Kind kind = Kind::kText;
  std::string text;  // the literal text, or the field's name
  bool operator==(const TemplatePart&) const = default;
};
using TextTemplate = std::vector<TemplatePart>;

// Config errors say what is wrong and at which character. Thread-safe.
absl::StatusOr<TextTemplate> ParseTextTemplate(std::string_view text);

}  // namespace osler
