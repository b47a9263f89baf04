// An outside text file in memory, and which files a source's path means.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/fs.h"

namespace osler {

// No record, line or item of an outside file may be longer.
inline constexpr size_t kMaxRecordBytes = size_t{256} << 20;

// A mapping; `text` is its content without a byte order mark.
struct TextFile {
  std::string path;
  std::shared_ptr<const MappedFile> map;
  std::string_view text;
};

// Data error for a file that cannot be read or begins as UTF-16 does.
absl::StatusOr<TextFile> OpenTextFile(Fs& fs, const std::string& path);

enum class Directories { kRefused, kListed };
// The files that `path` means: itself, or, if it has * ? or [ and is no file, those that match it
// component by component (a * does not match a leading dot), or, where they are listed, those that
// stand directly in the directory. Sorted; data error if there is none.
absl::StatusOr<std::vector<std::string>> SourceFiles(Fs& fs, const std::string& path,
                                                     Directories directories);

// The first byte (from 0) that begins no UTF-8 sequence.
std::optional<size_t> FirstNotUtf8(std::string_view text);
// Why `text` is no plain text, with the byte from 1 ("not UTF-8 at byte 7"), or "".
std::string WhyNotText(std::string_view text);
// White space only.
bool IsBlank(std::string_view text);

}  // namespace osler
