#include "data/sources/json_lines.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/sources/record_json.h"
#include "data/sources/reject.h"

namespace osler {
namespace {

bool IsBlank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

JsonLines::JsonLines(std::shared_ptr<const MappedFile> file, std::string path)
    : file_(std::move(file)) {
  origin_.file = std::move(path);
  if (file_->data().substr(0, 3) == "\xEF\xBB\xBF") at_ = 3;
}

absl::StatusOr<JsonLines> JsonLines::Open(Fs& fs, const std::string& path) {
  auto file = fs.Map(path);
  if (!file.ok()) return Reclassify(file.status(), ExitCode::kData);
  return JsonLines(*std::move(file), path);
}

absl::StatusOr<std::optional<nlohmann::json>> JsonLines::Next() {
  const std::string_view all = file_->data();
  if (at_ >= all.size()) return std::nullopt;
  const size_t end = std::min(all.find('\n', at_), all.size());
  std::string_view line = all.substr(at_, end - at_);
  at_ = end + (end < all.size() ? 1 : 0);
  ++origin_.line;
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (IsBlank(line)) {
    if (IsBlank(all.substr(at_))) return at_ = all.size(), std::nullopt;
    return Reject(origin_, kMalformed, "the line is empty");
  }
  if (line.size() > kMaxLineBytes)
    return Reject(origin_, kMalformed, "the line is longer than 256 MiB");
  auto document = ParseRecordJson(line);
  if (!document.ok()) {
    const absl::string_view why = document.status().message();
    return Reject(origin_, kMalformed, std::string_view(why.data(), why.size()));
  }
  return *std::move(document);
}

}  // namespace osler
