#include "configs/suggest.h"

#include <algorithm>
#include <cstddef>

#include <fmt/format.h>

#include "absl/strings/ascii.h"
#include "base/glob.h"

namespace osler {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

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
    const size_t distance = GlobDistance(Normal(other), Normal(name));
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
