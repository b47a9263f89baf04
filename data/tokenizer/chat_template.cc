#include "data/tokenizer/chat_template.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/jinja.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/special_tokens.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

constexpr std::string_view kStartOfTurn = "<start_of_turn>";
constexpr std::string_view kEndOfTurn = "<end_of_turn>";

struct Source {
  std::string text, where;
};

absl::StatusOr<std::string> ReadConfigFile(Fs& fs, const std::string& path) {
  auto text = fs.ReadFile(path);
  if (!text.ok()) return Reclassify(text.status(), ExitCode::kConfig);
  return *std::move(text);
}

// "chat_template" is a text, or a list of named ones of which "default" is meant.
absl::StatusOr<Source> TemplateIn(const Json& config, const std::string& path) {
  const JsonPart part = JsonPart{&config, path + ": "}.at("chat_template");
  if (!part.value->is_array()) {
    OSLER_ASSIGN_OR_RETURN(std::string text, ExpectString(part));
    return Source{std::move(text), part.where};
  }
  for (size_t i = 0; i < part.value->size(); ++i) {
    const JsonPart named = part.at(i);
    if (named.at("name").is_null() || *named.at("name").value != "default") continue;
    OSLER_ASSIGN_OR_RETURN(std::string text, ExpectString(named.at("template")));
    return Source{std::move(text), named.where};
  }
  return part.Error("has no template named \"default\"");
}

absl::StatusOr<Source> FindTemplate(Fs& fs, const std::string& directory, const Json& config,
                                    const std::string& config_path) {
  const std::string path = JoinPath(directory, "chat_template.jinja");
  if (fs.Exists(path)) {
    OSLER_ASSIGN_OR_RETURN(std::string text, ReadConfigFile(fs, path));
    return Source{std::move(text), path};
  }
  if (config.contains("chat_template") && !config["chat_template"].is_null()) {
    return TemplateIn(config, config_path);
  }
  return ConfigError(
      absl::StrCat(directory,
                   " has no chat template (neither chat_template.jinja nor \"chat_template\" "
                   "in tokenizer_config.json): messages cannot be turned into text; use an "
                   "instruction-tuned model's directory or copy its chat_template.jinja"));
}

class GemmaTemplate : public ChatTemplate {
 public:
  GemmaTemplate(jinja::Template parsed, std::vector<std::pair<std::string, std::string>> strings,
                std::string where, std::string digest)
      : template_(std::move(parsed)),
        strings_(std::move(strings)),
        where_(std::move(where)),
        digest_(std::move(digest)) {}

  absl::StatusOr<RenderedChat> Render(const std::vector<Message>& messages,
                                      bool add_generation_prompt) const override {
    OSLER_RETURN_IF_ERROR(Check(messages));
    const jinja::Variables variables{&messages, add_generation_prompt, strings_};
    auto text = template_.Render(variables);
    if (!text.ok()) {
      return ExitCodeOf(text.status()) == ExitCode::kData ? text.status()
                                                          : Annotate(text.status(), where_);
    }
    RenderedChat chat;
    OSLER_ASSIGN_OR_RETURN(chat.targets, Targets(messages, *text));
    chat.text = std::move(text->bytes);
    return chat;
  }

  const std::string& digest() const override { return digest_; }

 private:
  static absl::Status Check(const std::vector<Message>& messages) {
    if (messages.empty()) return DataError("the chat has no messages");
    size_t bytes = 0;
    for (size_t i = 0; i < messages.size(); ++i) {
      const std::string& role = messages[i].role;
      if (role != "system" && role != "user" && role != "assistant") {
        return DataError(absl::StrCat("message ", i + 1,
                                      ": unknown role; roles are system, user and assistant"));
      }
      if (role == "system" && i > 0) {
        return DataError(absl::StrCat("message ", i + 1, ": a system message must be the first"));
      }
      if (!IsUtf8(messages[i].content))
        return DataError(absl::StrCat("message ", i + 1, ": not UTF-8"));
      bytes += messages[i].content.size();
    }
    if (bytes > (size_t{1} << 29)) return DataError("the chat is longer than 512 MiB");
    return absl::OkStatus();
  }

  // Each assistant's content and the end of turn that the template writes right behind it.
  absl::StatusOr<std::vector<std::pair<int64_t, int64_t>>> Targets(
      const std::vector<Message>& messages, const jinja::Text& text) const {
    std::vector<const jinja::Span*> spans(messages.size(), nullptr);
    for (const jinja::Span& span : text.spans) {
      const jinja::Span*& known = spans[static_cast<size_t>(span.message)];
      if (known != nullptr) return Unknown(span.message, "is written twice");
      known = &span;
    }
    std::vector<std::pair<int64_t, int64_t>> targets;
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role != "assistant") continue;
      const int64_t index = static_cast<int64_t>(i);
      if (spans[i] == nullptr) return Unknown(index, "is not written");
      const size_t end = spans[i]->end;
      if (text.bytes.compare(end, kEndOfTurn.size(), kEndOfTurn) != 0) {
        return Unknown(index, "is not followed by <end_of_turn>");
      }
      targets.emplace_back(spans[i]->begin, end + kEndOfTurn.size());
    }
    std::sort(targets.begin(), targets.end());
    return targets;
  }

  absl::Status Unknown(int64_t message, std::string_view why) const {
    return ConfigError(absl::StrCat(where_, ": unknown chat template: the content of message ",
                                    message + 1, " ", absl::string_view(why.data(), why.size())));
  }

  jinja::Template template_;
  std::vector<std::pair<std::string, std::string>> strings_;
  std::string where_, digest_;
};

absl::StatusOr<jinja::Template> ParseGemma(const Source& source,
                                           const std::vector<std::string>& names) {
  auto parsed = jinja::Template::Parse(source.text, names);
  if (!parsed.ok()) return Annotate(parsed.status(), source.where + ": unknown chat template");
  if (source.text.find(kStartOfTurn) == std::string::npos ||
      source.text.find(kEndOfTurn) == std::string::npos) {
    return ConfigError(absl::StrCat(source.where,
                                    ": unknown chat template: this build knows Gemma's, with "
                                    "<start_of_turn> and <end_of_turn>"));
  }
  return parsed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(
    Fs& fs, const std::string& model_directory) {
  const std::string config_path = JoinPath(model_directory, "tokenizer_config.json");
  OSLER_ASSIGN_OR_RETURN(const Json config, ReadConfigObject(fs, config_path));
  OSLER_ASSIGN_OR_RETURN(const Source source,
                         FindTemplate(fs, model_directory, config, config_path));
  OSLER_ASSIGN_OR_RETURN(jinja::Template parsed,
                         ParseGemma(source, {"bos_token", "eos_token", "unk_token", "pad_token"}));
  OSLER_ASSIGN_OR_RETURN(
      const Json map, ReadConfigObject(fs, JoinPath(model_directory, "special_tokens_map.json")));
  std::vector<std::pair<std::string, std::string>> strings;
  std::string identity = source.text;
  for (const std::string& name : parsed.reads()) {
    std::string text = TokenText(config, name);
    if (text.empty()) text = TokenText(map, name);
    if (text.empty()) {
      return ConfigError(absl::StrCat(source.where, ": the chat template writes ", name, ", but ",
                                      config_path, " does not say what it is; add \"", name,
                                      "\" there"));
    }
    absl::StrAppend(&identity, absl::string_view("\0", 1), name, absl::string_view("\0", 1), text);
    strings.emplace_back(name, std::move(text));
  }
  auto made = std::make_unique<GemmaTemplate>(std::move(parsed), std::move(strings), source.where,
                                              Sha256Hex(identity));
  // A template whose targets cannot be found should say so now, not at the first record.
  const auto probe = made->Render({{"user", "question"}, {"assistant", "answer"}}, false);
  if (!probe.ok() && ExitCodeOf(probe.status()) == ExitCode::kConfig) return probe.status();
  return made;
}

}  // namespace osler
