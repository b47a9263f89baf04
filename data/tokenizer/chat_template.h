// Chat templates: the model directory's own Jinja text, rendered as transformers renders it
// (docs/tokenizer.md).
//
// The text is chat_template.jinja, or "chat_template" in tokenizer_config.json. Gemma's family is
// covered (turns that end in <end_of_turn>); a template that uses anything this build does not
// render exactly is a config error "unknown chat template" that says where. Nothing is added that
// the directory's template does not have.
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

struct RenderedChat {
  std::string text;
  // Byte ranges [begin, end) of `text` that are loss targets: each assistant turn with its
  // end-of-turn token.
  std::vector<std::pair<int64_t, int64_t>> targets;
};

// Immutable and thread-safe.
class ChatTemplate {
 public:
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(Fs& fs,
                                                            const std::string& model_directory);
  virtual ~ChatTemplate() = default;
  // Data errors say which message (1-based) is wrong: unknown role, a system message that is not
  // the first, whatever the template itself refuses (roles that do not alternate).
  virtual absl::StatusOr<RenderedChat> Render(const std::vector<Message>& messages,
                                              bool add_generation_prompt) const = 0;
  // SHA-256 of the template text and of the special tokens it writes.
  virtual const std::string& digest() const = 0;
};

}  // namespace osler
