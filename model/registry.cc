#include "model/registry.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "model/config_reader.h"
#include "model/decoder/decoder.h"
#include "model/decoder/gemma3.h"
#include "model/decoder/llama.h"
#include "model/decoder/qwen.h"

namespace osler {
namespace {

struct Architecture {
  const char* name;
  const char* model_type;
  absl::StatusOr<DecoderConfig> (*read)(ConfigReader& root);
};
constexpr Architecture kArchitectures[] = {
    {"Gemma3ForCausalLM", "gemma3_text", ReadGemma3Text},
    {"Gemma3ForConditionalGeneration", "gemma3", ReadGemma3Multimodal},
    {"LlamaForCausalLM", "llama", ReadLlama},
    {"Qwen2ForCausalLM", "qwen2", ReadQwen2},
    {"Qwen3ForCausalLM", "qwen3", ReadQwen3},
};

}  // namespace

std::vector<std::string> SupportedArchitectures() {
  std::vector<std::string> names;
  for (const Architecture& known : kArchitectures)
    names.push_back(absl::StrCat(known.name, " (model_type ", known.model_type, ")"));
  return names;
}

absl::StatusOr<ModelSpec> ParseModelSpec(std::string_view config_json, const std::string& name) {
  OSLER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseConfigJson(config_json, name));
  ConfigReader root(json, name, "");
  const std::vector<std::string> architectures = root.Strings("architectures");
  const std::string model_type = root.String("model_type", "");
  if (!root.status().ok()) return root.status();
  for (const Architecture& known : kArchitectures) {
    // The architecture decides; a config that names none (some adapters' bases) goes by its
    // model_type.
    const bool named =
        std::find(architectures.begin(), architectures.end(), known.name) != architectures.end();
    if (named || (architectures.empty() && model_type == known.model_type)) {
      OSLER_ASSIGN_OR_RETURN(const DecoderConfig config, known.read(root));
      return MakeDecoderSpec(config);
    }
  }
  return ConfigError(absl::StrCat(
      name, ": \"architectures\" [", absl::StrJoin(architectures, ", "), "] with \"model_type\" \"",
      model_type,
      "\" is not supported; supported: ", absl::StrJoin(SupportedArchitectures(), ", ")));
}

absl::StatusOr<ModelSpec> LoadModelSpec(Fs& fs, const std::string& model_directory) {
  const std::string path = JoinPath(model_directory, "config.json");
  const absl::StatusOr<std::string> text = fs.ReadFile(path);
  if (!text.ok()) {
    return Reclassify(Annotate(text.status(), "the model directory must be in Hugging Face layout"),
                      ExitCode::kConfig);
  }
  return ParseModelSpec(*text, path);
}

}  // namespace osler
