#include "checkpoint/part_metadata.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/status_macros.h"
#include "checkpoint/dtype.h"
#include "checkpoint/strict_json.h"

namespace osler {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostDimensions = 64;

absl::Status Bad(const char* why) { return absl::DataLossError(why); }

std::optional<std::vector<int64_t>> Numbers(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const Json& one : *found) {
    if (!one.is_number_unsigned() || one.get<uint64_t>() > INT64_MAX) return std::nullopt;
    numbers.push_back(one.get<int64_t>());
  }
  return numbers;
}

bool Within(const std::vector<int64_t>& begin_and_count, int64_t size) {
  return begin_and_count[0] <= size && begin_and_count[1] <= size - begin_and_count[0];
}

}  // namespace

std::string FormatPart(const TensorPart& part) {
  return fmt::format(R"({{"shape":[{}],"dim":{},"slice":[{},{}],"range":[{},{}]}})",
                     fmt::join(part.shape, ","), part.slice.dim, part.slice.begin,
                     part.slice.length, part.begin, part.count);
}

absl::StatusOr<TensorPart> ParsePart(std::string_view text) {
  OSLER_ASSIGN_OR_RETURN(const Json root, ParseStrictJson(text));
  if (!root.is_object() || root.size() != 4) return Bad("is no object of four fields");
  const auto shape = Numbers(root, "shape"), slice = Numbers(root, "slice"),
             range = Numbers(root, "range");
  const auto dim = root.find("dim");
  if (!shape || !slice || !range || dim == root.end() || !dim->is_number_unsigned()) {
    return Bad("needs whole numbers shape, dim, slice and range");
  }
  if (shape->empty() || shape->size() > kMostDimensions || slice->size() != 2 ||
      range->size() != 2 || dim->get<uint64_t>() >= shape->size()) {
    return Bad("has fields of wrong lengths");
  }
  if (!TensorBytes("F64", *shape).has_value()) return Bad("has a shape that is too large");
  TensorPart part;
  part.shape = *shape;
  part.slice.dim = dim->get<int>();
  if (!Within(*slice, part.shape[static_cast<size_t>(part.slice.dim)]))
    return Bad("has a slice that leaves its shape");
  part.slice.begin = (*slice)[0];
  part.slice.length = (*slice)[1];
  if (!Within(*range, SliceCount(part.shape, part.slice)))
    return Bad("has a range that leaves its slice");
  part.begin = (*range)[0];
  part.count = (*range)[1];
  return part;
}

}  // namespace osler
