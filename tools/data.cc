#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "tools/commands.h"
#include "tools/data_commands.h"

namespace osler {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 16;

}  // namespace

void AddDataCommand(CLI::App& app, Fs& fs, Action& action) {
  CLI::App* data = app.add_subcommand("data", "Build, look at and check de-identified shards.");
  data->footer("Example: osler data build --config build.yaml");
  data->require_subcommand(1);
  AddDataBuild(*data, fs, action);
  AddDataInspect(*data, fs, action);
  AddDataVerify(*data, fs, action);
}

std::vector<std::string> ShardDirectories(Fs& fs, const std::string& path) {
  std::vector<std::string> directories;
  if (!fs.Exists(JoinPath(path, "manifest.json"))) {
    for (const char* split : {"train", "validation"}) {
      if (fs.IsDirectory(JoinPath(path, split))) directories.push_back(JoinPath(path, split));
    }
  }
  if (directories.empty()) directories.push_back(path);
  return directories;
}

StdoutLines::StdoutLines() { std::signal(SIGPIPE, SIG_IGN); }
StdoutLines::~StdoutLines() { Flush().IgnoreError(); }

absl::StatusOr<bool> StdoutLines::Write(std::string_view line) {
  buffer_.append(line).append("\n");
  return buffer_.size() < kBufferBytes ? true : Flush();
}

absl::StatusOr<bool> StdoutLines::Flush() {
  std::string_view rest = buffer_;
  while (!rest.empty()) {
    const ssize_t n = write(STDOUT_FILENO, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      buffer_.clear();
      if (error == EPIPE) return false;
      return DataError(absl::StrCat("cannot write to stdout: ", std::strerror(error)));
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  buffer_.clear();
  return true;
}

}  // namespace osler
