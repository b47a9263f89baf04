// Chat templates: the model directory's own Jinja text, rendered as transformers renders it
// (docs/tokenizer.md), or a built-in one by name.
//
// The text is chat_template.jinja, or "chat_template" in tokenizer_config.json. Templates whose
// turns end in <end_of_turn> (Gemma), <|eot_id|> (Llama 3) or <|im_end|> (ChatML: Qwen) are
// covered, and those that mark what the model is to write with {% generation %}; a template that
// uses anything this build does not render exactly is a config error "unknown chat template" that
// says where. Nothing is added that the template does not have.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/record.h"

namespace osler {

struct ChatTemplateOptions {
  std::string name;  // gemma, llama3 or chatml: that template; empty: the directory's own
  std::string date;  // YYYY-MM-DD, for templates that write today's; empty: there is no today
};

struct RenderedChat {
  std::string text;
  // Byte ranges [begin, end) of `text` that the model is to write: each assistant turn with its
  // end-of-turn token.
  std::vector<std::pair<int64_t, int64_t>> turns;
};

// Immutable and thread-safe.
class ChatTemplate {
 public:
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(
      Fs& fs, const std::string& model_directory, const ChatTemplateOptions& options = {});
  virtual ~ChatTemplate() = default;
  // Data errors say which message (1-based) is wrong: unknown role, a system message that is not
  // the first, whatever the template itself refuses (roles that do not alternate).
  virtual absl::StatusOr<RenderedChat> Render(const std::vector<Message>& messages,
                                              bool add_generation_prompt) const = 0;
  // What ends a turn; empty if only {% generation %} blocks say what the model writes.
  virtual const std::string& end_of_turn() const = 0;
  // SHA-256 of the template text, the special tokens it writes and the date.
  virtual const std::string& digest() const = 0;
};

// The text of a built-in template, or a config error that lists the names.
absl::StatusOr<std::string> BuiltinTemplate(const std::string& name);

}  // namespace osler
