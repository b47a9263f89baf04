#include "data/sources/source.h"

#include <utility>

#include "base/errors.h"
#include "base/status_macros.h"
#include "data/sources/chat_jsonl.h"
#include "data/sources/json_lines.h"
#include "data/sources/tokens_jsonl.h"

namespace osler {

absl::StatusOr<std::unique_ptr<Source>> OpenSource(Fs& fs, const config::Source& options) {
  OSLER_ASSIGN_OR_RETURN(JsonLines lines, JsonLines::Open(fs, options.path()));
  switch (options.format()) {
    case config::CHAT_JSONL: return MakeChatJsonl(std::move(lines), options.trusted());
    case config::TOKENS_JSONL: return MakeTokensJsonl(std::move(lines), options.trusted());
  }
  return ConfigError("sources: unknown format");
}

}  // namespace osler
