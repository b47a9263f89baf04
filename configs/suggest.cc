#include "configs/suggest.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include <fmt/format.h>

#include "absl/strings/ascii.h"

namespace osler {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// Levenshtein's distance by rows.
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string Normal(std::string key) {
  std::replace(key.begin(), key.end(), '-', '_');
  return absl::AsciiStrToLower(key);
}

// The path of a field with this name below `message` (the schemas have no cycles), or "".
std::string FindElsewhere(const std::string& key, const Descriptor& message) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor* field = message.field(i);
    if (field->name() == key) return key;
    if (field->message_type() == nullptr || field->is_repeated()) continue;
    if (const std::string below = FindElsewhere(key, *field->message_type()); !below.empty()) {
      return field->name() + "." + below;
    }
  }
  return "";
}

}  // namespace

std::string NearestName(const std::string& name, const std::vector<std::string>& names) {
  constexpr size_t kLongest = 64;  // nothing longer resembles a name
  if (name.size() > kLongest) return "";
  std::string nearest;
  size_t nearest_distance = kLongest;
  for (const std::string& other : names) {
    if (other.size() > kLongest) continue;
    const size_t distance = EditDistance(Normal(name), Normal(other));
    if (distance >= nearest_distance) continue;
    nearest = other;
    nearest_distance = distance;
  }
  const size_t near = std::max<size_t>(1, std::max(name.size(), nearest.size()) / 3);
  return nearest_distance <= near && nearest_distance < nearest.size() ? nearest : "";
}

std::string SuggestKey(const std::string& key, const Descriptor& message, const Descriptor& root) {
  std::vector<std::string> valid;
  for (int i = 0; i < message.field_count(); ++i) valid.push_back(message.field(i)->name());
  if (const std::string nearest = NearestName(key, valid); !nearest.empty())
    return fmt::format("did you mean '{}'?", nearest);
  if (const std::string path = FindElsewhere(Normal(key), root); !path.empty()) {
    return fmt::format("did you mean '{}'?", path);
  }
  return fmt::format("valid keys here: {}", fmt::join(valid, ", "));
}

}  // namespace osler
