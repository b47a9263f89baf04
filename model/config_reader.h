// Typed access to a config.json: every value has a default or an error that names file, key, value
// and what is allowed.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace osler {

// Parses `text`; an error names `file` and the line. The root must be an object.
absl::StatusOr<nlohmann::json> ParseConfigJson(std::string_view text, const std::string& file);

// Reads one JSON object. The first error sticks: later reads return their defaults, and status()
// tells it, so that a reader states its keys in one column and checks once. An absent key and null
// both mean "default". Keeps references to `object`, which must outlive it. Not thread-safe.
class ConfigReader {
 public:
  // `path` is the object's place in the file, for messages: "" for the root, else "text_config.".
  ConfigReader(const nlohmann::json& object, std::string file, std::string path);

  bool Has(const char* key) const;
  // The key is there and null, which a family may tell from absent.
  bool IsNull(const char* key) const;
  int64_t Int(const char* key, int64_t fallback, int64_t min, int64_t max);
  // PRE: fallback is allowed itself. `positive` numbers must be finite and > 0.
  double Positive(const char* key, double fallback);
  double Number(const char* key, double fallback);
  bool Bool(const char* key, bool fallback);
  std::string String(const char* key, const std::string& fallback);
  std::vector<std::string> Strings(const char* key);
  // The object under `key`, or an empty one.
  ConfigReader Object(const char* key);
  // The keys of this object.
  std::vector<std::string> Keys() const;

  // Records an error about `key` unless one is recorded already: FILE: "path.key" MESSAGE.
  void Fail(const char* key, std::string_view message);
  // Takes over a sub-object's error.
  void Merge(const ConfigReader& other);
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(const char* key) const;
  void WrongType(const char* key, const nlohmann::json& value, std::string_view wanted);

  const nlohmann::json& object_;
  std::string file_, path_;
  absl::Status status_;
};

}  // namespace osler
