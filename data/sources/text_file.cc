#include "data/sources/text_file.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "data/tokenizer/unicode.h"

namespace osler {
namespace {

bool IsPattern(std::string_view text) {
  return text.find_first_of("*?[") != std::string_view::npos;
}

// The entries of `directory` that match, as paths; none if it cannot be listed.
std::vector<std::string> Matches(Fs& fs, const std::string& directory, const std::string& pattern) {
  std::vector<std::string> found;
  const auto names = fs.List(directory.empty() ? "." : directory);
  if (!names.ok()) return found;
  for (const std::string& name : *names) {
    if (fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) == 0)
      found.push_back(directory.empty() ? name : JoinPath(directory, name));
  }
  return found;
}

std::vector<std::string> Expand(Fs& fs, const std::string& pattern) {
  std::vector<std::string> paths = {pattern.starts_with('/') ? "/" : ""};
  for (const absl::string_view part : absl::StrSplit(pattern, '/', absl::SkipEmpty())) {
    const std::string component(part);
    std::vector<std::string> next;
    for (const std::string& path : paths) {
      if (IsPattern(component)) {
        for (std::string& match : Matches(fs, path, component)) next.push_back(std::move(match));
      } else if (std::string joined = path.empty() ? component : JoinPath(path, component);
                 fs.Exists(joined)) {
        next.push_back(std::move(joined));
      }
    }
    paths = std::move(next);
  }
  std::erase_if(paths, [&](const std::string& path) { return fs.IsDirectory(path); });
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

absl::StatusOr<TextFile> OpenTextFile(Fs& fs, const std::string& path) {
  auto map = fs.Map(path);
  if (!map.ok()) return Reclassify(map.status(), ExitCode::kData);
  TextFile file{path, *std::move(map), {}};
  file.text = file.map->data();
  if (file.text.starts_with("\xFF\xFE") || file.text.starts_with("\xFE\xFF")) {
    return DataError(path + ": is UTF-16, not UTF-8; convert it (iconv -f UTF-16 -t UTF-8)");
  }
  if (file.text.starts_with("\xEF\xBB\xBF")) file.text.remove_prefix(3);
  return file;
}

absl::StatusOr<std::vector<std::string>> SourceFiles(Fs& fs, const std::string& path,
                                                     Directories directories) {
  if (fs.IsDirectory(path)) {
    if (directories == Directories::kRefused) {
      return DataError(absl::StrCat(path, ": is a directory; give the file, or a pattern such as ",
                                    JoinPath(path, "*.jsonl")));
    }
    std::vector<std::string> files;
    for (const std::string& name : Matches(fs, path, "*")) {
      if (!fs.IsDirectory(name)) files.push_back(name);
    }
    if (files.empty()) return DataError(path + ": the directory holds no files");
    return files;
  }
  if (fs.Exists(path) || !IsPattern(path)) return std::vector<std::string>{path};
  std::vector<std::string> files = Expand(fs, path);
  if (files.empty()) return DataError(path + ": no file matches this pattern");
  return files;
}

std::optional<size_t> FirstNotUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = static_cast<unsigned char>(text[at]) < 0x80 ? 1 : Utf8Length(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

std::string WhyNotText(std::string_view text) {
  if (const auto at = FirstNotUtf8(text); at.has_value())
    return absl::StrCat("not UTF-8 at byte ", *at + 1);
  if (const size_t at = text.find('\0'); at != std::string_view::npos)
    return absl::StrCat("no plain text: NUL at byte ", at + 1);
  return "";
}

bool IsBlank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos;
}

}  // namespace osler
