#include "parallel/placement.h"

#include <algorithm>

namespace osler {

std::optional<int> SplitDim(Split split) {
  switch (split) {
    case Split::kReplicated: return std::nullopt;
    case Split::kColumn: return 0;
    case Split::kRow: return 1;
    case Split::kVocabulary: return 0;
  }
  return std::nullopt;
}

bool Matches(const PlacementRule& rule, std::string_view parameter) {
  std::string_view pattern = rule.pattern;
  for (;;) {
    const size_t pattern_end = pattern.find('.'), end = parameter.find('.');
    const std::string_view part = pattern.substr(0, pattern_end);
    if (part != "*" && part != parameter.substr(0, end)) return false;
    const bool last = end == std::string_view::npos;
    if (last != (pattern_end == std::string_view::npos)) return false;
    if (last) return true;
    pattern.remove_prefix(pattern_end + 1);
    parameter.remove_prefix(end + 1);
  }
}

const PlacementRule* FindRule(const PlacementRules& rules, std::string_view parameter) {
  const auto found = std::find_if(rules.begin(), rules.end(), [parameter](const auto& rule) {
    return Matches(rule, parameter);
  });
  return found == rules.end() ? nullptr : &*found;
}

}  // namespace osler
