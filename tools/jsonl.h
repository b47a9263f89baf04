// JSON lines in and out for the commands that map each input line to one output line.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/fs.h"
#include "data/record.h"

namespace osler {

// Calls `visit` for every line of `path`, in order, with its 1-based number. A trailing newline,
// CRLF and one final empty line are fine; a line that is not a JSON object is a data error
// "PATH:LINE: …". An error of `visit` is returned with "PATH:LINE: " before it.
absl::Status ForEachJsonLine(
    Fs& fs, const std::string& path,
    absl::FunctionRef<absl::Status(const nlohmann::json& line, int64_t number)> visit);

// Values of a line: "input_ids", a list of integers from 0, and "messages", a list of objects with
// "role" and "content". Data errors.
absl::StatusOr<std::vector<int32_t>> ReadIds(const nlohmann::json& values);
absl::StatusOr<std::vector<Message>> ReadMessages(const nlohmann::json& values);

// A file that appears under its name only when Commit succeeds; until then, and after a failure, an
// older file of that name stays.
class OutputFile {
 public:
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(Fs& fs, const std::string& path);
  ~OutputFile();
  absl::Status AppendLine(const nlohmann::ordered_json& line);
  absl::Status Commit();

 private:
  OutputFile(Fs& fs, std::string path, std::unique_ptr<WritableFile> file);
  Fs& fs_;
  std::string path_;
  std::unique_ptr<WritableFile> file_;
  std::string buffer_;
  bool committed_ = false;
};

}  // namespace osler
