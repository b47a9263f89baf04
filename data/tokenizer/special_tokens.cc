#include "data/tokenizer/special_tokens.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {

absl::StatusOr<Json> ReadConfigObject(Fs& fs, const std::string& path) {
  if (!fs.Exists(path)) return Json::object();
  const auto text = fs.ReadFile(path);
  if (!text.ok()) return Reclassify(text.status(), ExitCode::kConfig);
  OSLER_ASSIGN_OR_RETURN(Json object, ParseJson(*text, path));
  if (!object.is_object()) return ConfigError(absl::StrCat(path, ": must be a JSON object"));
  return object;
}

std::string TokenText(const Json& config, const std::string& name) {
  if (!config.contains(name)) return "";
  const Json& token = config[name];
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string()) {
    return token["content"].get<std::string>();
  }
  return "";
}

absl::StatusOr<std::string> SpecialToken(Fs& fs, const std::string& directory,
                                         const std::string& name) {
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    OSLER_ASSIGN_OR_RETURN(const Json config, ReadConfigObject(fs, JoinPath(directory, file)));
    std::string text = TokenText(config, name);
    if (!text.empty()) return text;
  }
  return ConfigError(absl::StrCat(JoinPath(directory, "tokenizer_config.json"),
                                  ": does not say what ", name, " is; add \"", name, "\" there"));
}

}  // namespace osler
