#include "data/sources/source.h"

#include <memory>
#include <optional>
#include <utility>

#include "base/errors.h"
#include "base/status_macros.h"
#include "data/sources/chat_jsonl.h"
#include "data/sources/json_lines.h"
#include "data/sources/tokens_jsonl.h"

namespace osler {
namespace {

// The JSON Lines formats differ only in how one line's document becomes a record.
class JsonlSource : public Source {
 public:
  using Parse = absl::StatusOr<RawRecord> (*)(const nlohmann::json&, const Origin&);
  JsonlSource(JsonLines lines, Parse parse, const config::Source& options)
      : lines_(std::move(lines)), parse_(parse), trusted_(options.trusted()) {}

  absl::StatusOr<std::optional<RawRecord>> Next() override {
    OSLER_ASSIGN_OR_RETURN(const std::optional<nlohmann::json> document, lines_.Next());
    if (!document.has_value()) return std::nullopt;
    OSLER_ASSIGN_OR_RETURN(RawRecord record, parse_(*document, lines_.origin()));
    record.trusted = trusted_;
    return std::optional<RawRecord>(std::move(record));
  }
  int64_t position() const override { return lines_.position(); }
  int64_t size() const override { return lines_.size(); }

 private:
  JsonLines lines_;
  const Parse parse_;
  const bool trusted_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Source>> OpenSource(Fs& fs, const config::Source& options) {
  OSLER_ASSIGN_OR_RETURN(JsonLines lines, JsonLines::Open(fs, options.path()));
  switch (options.format()) {
    case config::CHAT_JSONL:
      return std::make_unique<JsonlSource>(std::move(lines), ParseChatRecord, options);
    case config::TOKENS_JSONL:
      return std::make_unique<JsonlSource>(std::move(lines), ParseTokenRecord, options);
  }
  return ConfigError("sources: unknown format");
}

}  // namespace osler
