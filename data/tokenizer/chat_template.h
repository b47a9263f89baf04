// Chat templates, rendered as the model directory's own template does (Gemma: docs/tokenizer.md).
//
// Jinja is not interpreted: the template text (chat_template.jinja, or "chat_template" in tokenizer_config.json) is
// recognised by its markers and rendered by code, and an unknown one is a config error. Nothing is added that the
// directory's template does not have.
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
  // Byte ranges [begin, end) of `text` that are loss targets: each assistant turn with its end-of-turn token.
  std::vector<std::pair<int64_t, int64_t>> targets;
};

// Immutable and thread-safe.
class ChatTemplate {
 public:
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(Fs& fs, const std::string& model_directory);
  virtual ~ChatTemplate() = default;
  // Data errors say which message (1-based) is wrong: unknown role, roles that do not alternate.
  virtual absl::StatusOr<RenderedChat> Render(const std::vector<Message>& messages,
                                              bool add_generation_prompt) const = 0;
  virtual const std::string& digest() const = 0;  // SHA-256 of the template text
};

}  // namespace osler
