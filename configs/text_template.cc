#include "configs/text_template.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/errors.h"

namespace osler {
namespace {

void AddText(std::string_view text, TextTemplate& parts) {
  if (parts.empty() || parts.back().kind != TemplatePart::Kind::kText) parts.emplace_back();
  parts.back().text += text;
}

}  // namespace

absl::StatusOr<TextTemplate> ParseTextTemplate(std::string_view text) {
  TextTemplate parts;
  for (size_t at = 0; at < text.size();) {
    const size_t brace = std::min(text.find_first_of("{}", at), text.size());
    if (brace > at) AddText(text.substr(at, brace - at), parts);
    if (brace == text.size()) break;
    if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
      AddText(text.substr(brace, 1), parts);
      at = brace + 2;
      continue;
    }
    if (text[brace] == '}') {
      return ConfigError(
          fmt::format("has a }} without {{ at character {}; write }}}} for a brace", brace + 1));
    }
    const size_t end = text.find_first_of("{}", brace + 1);
    if (end == std::string_view::npos || text[end] == '{') {
      return ConfigError(fmt::format(
          "has a {{ at character {} that is not closed; write {{{{ for a brace", brace + 1));
    }
    std::string_view name = text.substr(brace + 1, end - brace - 1);
    const bool optional = name.ends_with('?');
    if (optional) name.remove_suffix(1);
    if (name.empty()) {
      return ConfigError(
          fmt::format("names no field between the braces at character {}", brace + 1));
    }
    parts.push_back({optional ? TemplatePart::Kind::kOptionalField : TemplatePart::Kind::kField,
                     std::string(name)});
    at = end + 1;
  }
  return parts;
}

}  // namespace osler
