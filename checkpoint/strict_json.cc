#include "checkpoint/strict_json.h"

#include <fmt/format.h>

#include <set>
#include <string>
#include <vector>

#include "checkpoint/dtype.h"

namespace osler {
namespace {

using Json = nlohmann::json;

constexpr int kDeepest = 16;

// The keys of the objects that are open, innermost last.
class DuplicateKeys {
 public:
  bool Visit(int depth, Json::parse_event_t event, const Json& value) {
    if (!error_.empty()) return false;
    if (depth > kDeepest) return Fail("is nested too deeply");
    if (event == Json::parse_event_t::object_start) open_.emplace_back();
    if (event == Json::parse_event_t::object_end) open_.pop_back();
    if (event != Json::parse_event_t::key) return true;
    const auto& key = value.get_ref<const std::string&>();
    return open_.back().insert(key).second || Fail("has the key " + Printable(key) + " twice");
  }
  const std::string& error() const { return error_; }

 private:
  bool Fail(std::string why) {
    error_ = std::move(why);
    return false;
  }
  std::vector<std::set<std::string>> open_;
  std::string error_;
};

}  // namespace

absl::StatusOr<Json> ParseStrictJson(std::string_view text) {
  DuplicateKeys keys;
  try {
    Json parsed = Json::parse(text, [&](int depth, Json::parse_event_t event, Json& value) {
      return keys.Visit(depth, event, value);
    });
    if (!keys.error().empty()) return absl::DataLossError(keys.error());
    return parsed;
  } catch (const Json::parse_error& error) {
    if (!keys.error().empty()) return absl::DataLossError(keys.error());
    return absl::DataLossError(fmt::format("is not valid JSON at byte {}", error.byte));
  } catch (const std::exception&) {
    return absl::DataLossError("is not usable JSON");
  }
}

}  // namespace osler
