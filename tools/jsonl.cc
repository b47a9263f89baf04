#include "tools/jsonl.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

}  // namespace

absl::Status ForEachJsonLine(
    Fs& fs, const std::string& path,
    absl::FunctionRef<absl::Status(const nlohmann::json& line, int64_t number)> visit) {
  auto mapped = fs.Map(path);
  if (!mapped.ok()) return Reclassify(mapped.status(), ExitCode::kData);
  std::string_view rest = (*mapped)->data();
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    if (text.empty() && rest.empty()) break;
    const auto line = nlohmann::json::parse(text, nullptr, false);
    const std::string where = absl::StrCat(path, ":", number);
    if (!line.is_object()) return DataError(absl::StrCat(where, ": not a JSON object on one line"));
    OSLER_RETURN_IF_ERROR(Annotate(visit(line, number), where));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ReadIds(const nlohmann::json& values) {
  std::vector<int32_t> ids;
  bool good = values.is_array();
  for (size_t i = 0; good && i < values.size(); ++i) {
    good = values[i].is_number_integer() && values[i] >= 0 && values[i] <= INT32_MAX;
    if (good) ids.push_back(values[i].get<int32_t>());
  }
  if (!good) return DataError("\"input_ids\" must be a list of integers from 0");
  return ids;
}

absl::StatusOr<std::vector<Message>> ReadMessages(const nlohmann::json& values) {
  if (!values.is_array()) return DataError("\"messages\" must be a list");
  std::vector<Message> messages;
  for (const nlohmann::json& item : values) {
    const auto text = [&](const char* key) {
      return item.is_object() && item.contains(key) && item[key].is_string();
    };
    if (!text("role") || !text("content")) {
      return DataError(
          absl::StrCat("message ", messages.size() + 1,
                       ": must be an object with \"role\" and \"content\", both strings"));
    }
    messages.push_back({item["role"].get<std::string>(), item["content"].get<std::string>()});
  }
  return messages;
}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(Fs& fs, const std::string& path) {
  auto file = fs.Open(path + ".tmp", OpenMode::kTruncate);
  if (!file.ok()) return Reclassify(file.status(), ExitCode::kConfig);
  return std::unique_ptr<OutputFile>(new OutputFile(fs, path, *std::move(file)));
}

OutputFile::OutputFile(Fs& fs, std::string path, std::unique_ptr<WritableFile> file)
    : fs_(fs), path_(std::move(path)), file_(std::move(file)) {}

OutputFile::~OutputFile() {
  if (!committed_) fs_.Remove(path_ + ".tmp").IgnoreError();
}

absl::Status OutputFile::AppendLine(const nlohmann::ordered_json& line) {
  buffer_ += line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  buffer_ += '\n';
  if (buffer_.size() < kBufferBytes) return absl::OkStatus();
  const absl::Status written = file_->Append(buffer_);
  buffer_.clear();
  return Reclassify(written, ExitCode::kData);
}

absl::Status OutputFile::Commit() {
  absl::Status status = file_->Append(buffer_);
  if (status.ok()) status = file_->Sync();
  if (status.ok()) status = file_->Close();
  if (status.ok()) status = fs_.Rename(path_ + ".tmp", path_);
  committed_ = status.ok();
  if (status.ok()) status = fs_.SyncDirectory(ParentDirectory(path_));
  return Reclassify(status, ExitCode::kData);
}

}  // namespace osler
