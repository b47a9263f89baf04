#include "data/tokenizer/chat_template.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/chat_turns.h"
#include "data/tokenizer/jinja.h"
#include "data/tokenizer/json_part.h"
#include "data/tokenizer/special_tokens.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

constexpr std::string_view kEndsOfTurn[] = {"<end_of_turn>", "<|eot_id|>", "<|im_end|>"};

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
                   "instruction-tuned model's directory, copy its chat_template.jinja, or name a "
                   "built-in template (data.template, or --template: gemma, llama3, chatml)"));
}

class JinjaTemplate : public ChatTemplate {
 public:
  JinjaTemplate(jinja::Template parsed, std::vector<std::pair<std::string, std::string>> strings,
                std::string date, std::string where, std::string digest)
      : template_(std::move(parsed)),
        strings_(std::move(strings)),
        date_(std::move(date)),
        where_(std::move(where)),
        digest_(std::move(digest)) {}

  // Finds how turns begin and end. A template whose turns cannot be found should say so now, not at
  // the first record.
  absl::Status Learn(const std::string& source) {
    for (const std::string_view end : kEndsOfTurn) {
      if (marks_.end_of_turn.empty() && source.find(end) != std::string::npos)
        marks_.end_of_turn = end;
    }
    if (marks_.end_of_turn.empty() && !template_.marks_generation()) {
      return ConfigError(absl::StrCat(
          where_,
          ": unknown chat template: this build knows those of Gemma (<end_of_turn>), Llama 3 "
          "(<|eot_id|>) and ChatML (<|im_end|>), and those with {% generation %}"));
    }
    const std::vector<Message> question = {{"user", "question"}};
    const auto plain = Write(question, false), prompt = Write(question, true);
    if (plain.ok() && prompt.ok()) {
      const std::string &before = plain->text.bytes, &after = prompt->text.bytes;
      if (after.compare(0, before.size(), before) == 0) marks_.header = after.substr(before.size());
    }
    const auto probe = Render({question[0], {"assistant", "answer"}}, false);
    return ExitCodeOf(probe.status()) == ExitCode::kConfig ? probe.status() : absl::OkStatus();
  }

  absl::StatusOr<RenderedChat> Render(const std::vector<Message>& messages,
                                      bool add_generation_prompt) const override {
    OSLER_RETURN_IF_ERROR(Check(messages));
    OSLER_ASSIGN_OR_RETURN(jinja::Rendered rendered, Write(messages, add_generation_prompt));
    RenderedChat chat;
    if (template_.marks_generation()) {
      OSLER_ASSIGN_OR_RETURN(chat.turns, MarkedTurns(messages, rendered));
    } else {
      auto turns = AssistantTurns(messages, rendered.text, marks_);
      if (!turns.ok()) return Annotate(turns.status(), where_ + ": unknown chat template");
      chat.turns = *std::move(turns);
    }
    chat.text = std::move(rendered.text.bytes);
    return chat;
  }

  const std::string& end_of_turn() const override { return marks_.end_of_turn; }
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

  absl::StatusOr<jinja::Rendered> Write(const std::vector<Message>& messages,
                                        bool add_generation_prompt) const {
    auto rendered = template_.Render({&messages, add_generation_prompt, strings_, date_});
    if (rendered.ok() || ExitCodeOf(rendered.status()) == ExitCode::kData) return rendered;
    return Annotate(rendered.status(), where_);
  }

  absl::StatusOr<std::vector<std::pair<int64_t, int64_t>>> MarkedTurns(
      const std::vector<Message>& messages, const jinja::Rendered& rendered) const {
    const auto assistants =
        std::count_if(messages.begin(), messages.end(),
                      [](const Message& message) { return message.role == "assistant"; });
    if (static_cast<size_t>(assistants) != rendered.generations.size()) {
      return ConfigError(absl::StrCat(where_, ": unknown chat template: it writes ",
                                      rendered.generations.size(), " generation blocks for ",
                                      assistants, " assistant messages"));
    }
    return std::vector<std::pair<int64_t, int64_t>>(rendered.generations.begin(),
                                                    rendered.generations.end());
  }

  jinja::Template template_;
  std::vector<std::pair<std::string, std::string>> strings_;
  std::string date_, where_, digest_;
  TurnMarks marks_;
};

// The special tokens that the template writes, by name.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> SpecialTokensOf(
    Fs& fs, const std::string& directory, const Json& config, const Source& source,
    const std::vector<std::string>& names) {
  OSLER_ASSIGN_OR_RETURN(const Json map,
                         ReadConfigObject(fs, JoinPath(directory, "special_tokens_map.json")));
  std::vector<std::pair<std::string, std::string>> strings;
  for (const std::string& name : names) {
    std::string text = TokenText(config, name);
    if (text.empty()) text = TokenText(map, name);
    if (text.empty()) {
      return ConfigError(absl::StrCat(source.where, ": the chat template writes ", name, ", but ",
                                      JoinPath(directory, "tokenizer_config.json"),
                                      " does not say what it is; add \"", name, "\" there"));
    }
    strings.emplace_back(name, std::move(text));
  }
  return strings;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(
    Fs& fs, const std::string& model_directory, const ChatTemplateOptions& options) {
  const std::string config_path = JoinPath(model_directory, "tokenizer_config.json");
  OSLER_ASSIGN_OR_RETURN(const Json config, ReadConfigObject(fs, config_path));
  Source source;
  if (!options.name.empty()) {
    source.where = absl::StrCat("the built-in template ", options.name);
    OSLER_ASSIGN_OR_RETURN(source.text, BuiltinTemplate(options.name));
  } else {
    OSLER_ASSIGN_OR_RETURN(source, FindTemplate(fs, model_directory, config, config_path));
  }
  auto parsed =
      jinja::Template::Parse(source.text, {"bos_token", "eos_token", "unk_token", "pad_token"});
  if (!parsed.ok()) return Annotate(parsed.status(), source.where + ": unknown chat template");
  OSLER_ASSIGN_OR_RETURN(auto strings,
                         SpecialTokensOf(fs, model_directory, config, source, parsed->reads()));
  std::string identity = source.text;
  const auto add = [&](const std::string& part) {
    absl::StrAppend(&identity, absl::string_view("\0", 1), part);
  };
  for (const auto& [name, text] : strings) add(name), add(text);
  if (!options.date.empty()) add(options.date);
  auto made = std::make_unique<JinjaTemplate>(*std::move(parsed), std::move(strings), options.date,
                                              source.where, Sha256Hex(identity));
  OSLER_RETURN_IF_ERROR(made->Learn(source.text));
  return made;
}

}  // namespace osler
