#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "trainer/generate/generator.h"

namespace osler {
namespace {

constexpr const char* kKey = "eos_token_id";

absl::StatusOr<std::vector<int32_t>> ReadIds(const nlohmann::json& value, const std::string& file) {
  const nlohmann::json list = value.is_array() ? value : nlohmann::json::array({value});
  std::vector<int32_t> ids;
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > std::numeric_limits<int32_t>::max()) {
      return ConfigError(
          absl::StrCat(file, ": \"", kKey, "\" must be a token id or a list of token ids"));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> LoadEndIds(Fs& fs, const std::string& model_directory) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    const std::string path = JoinPath(model_directory, name);
    if (!fs.Exists(path)) continue;
    const auto text = fs.ReadFile(path);
    if (!text.ok()) return Reclassify(text.status(), ExitCode::kConfig);
    OSLER_ASSIGN_OR_RETURN(const nlohmann::json root, ParseConfigJson(*text, path));
    for (const nlohmann::json& object : {root, root.value("text_config", nlohmann::json())}) {
      if (!object.is_object()) continue;
      const auto value = object.find(kKey);
      if (value != object.end() && !value->is_null()) return ReadIds(*value, path);
    }
  }
  return std::vector<int32_t>();
}

}  // namespace osler
