#include "parallel/placement.h"

#include <c10/util/Exception.h>

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

TensorSlice SliceFor(const PlacementRule& rule, const std::vector<int64_t>& shape, int rank,
                     int size) {
  const std::optional<int> dim = SplitDim(rule.split);
  if (!dim) return {.dim = 0, .begin = 0, .length = shape.at(0), .copies = size};
  const int64_t length = shape.at(static_cast<size_t>(*dim)), units = length / rule.unit;
  if (length % rule.unit == 0 && units % size == 0) {
    const int64_t share = length / size;
    return {.dim = *dim, .begin = rank * share, .length = share};
  }
  // Rows and the vocabulary are summed over the ranks: a copy would count twice.
  TORCH_CHECK(
      rule.split == Split::kColumn && length % rule.unit == 0 && units > 0 && size % units == 0,
      rule.pattern, ": ", length, " in units of ", rule.unit, " cannot be dealt to ", size,
      " ranks");
  const int copies = size / static_cast<int>(units);
  return {.dim = *dim, .begin = rank / copies * rule.unit, .length = rule.unit, .copies = copies};
}

std::vector<int64_t> SlicedShape(std::vector<int64_t> shape, const TensorSlice& slice) {
  shape.at(static_cast<size_t>(slice.dim)) = slice.length;
  return shape;
}

at::Tensor Narrow(const at::Tensor& whole, const TensorSlice& slice) {
  return whole.narrow(slice.dim, slice.begin, slice.length);
}

}  // namespace osler
