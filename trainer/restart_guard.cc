#include "trainer/restart_guard.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/log.h"

namespace osler {
namespace {

using nlohmann::json;

constexpr char kFile[] = "restarts.json";
constexpr char kWordless[] = "ended without a word (killed, crashed or out of memory)";

std::string WithoutNumbers(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) result += c;
  }
  return result;
}

// How the last run ended by its ranks' records: its failure, "" when it was none. The records go.
std::string TakeFailure(Fs& fs, const std::string& log_directory) {
  const auto names = fs.List(log_directory);
  if (!names.ok()) return kWordless;
  std::string failure;
  bool any = false;
  for (const std::string& name : *names) {
    if (!absl::StartsWith(name, "exit.rank") || !absl::EndsWith(name, ".json")) continue;
    const std::string path = JoinPath(log_directory, name);
    const json record = json::parse(fs.ReadFile(path).value_or(""), nullptr, false);
    fs.Remove(path).IgnoreError();
    if (!record.is_object()) continue;
    any = true;
    const int64_t code = record.value("exit_code", int64_t{0});
    const bool failed = code != 0 && code != static_cast<int64_t>(ExitCode::kStopped);
    if (failed && failure.empty()) failure = record.value("message", "");
  }
  return any ? failure : kWordless;
}

}  // namespace

absl::Status CheckRestarts(Fs& fs, const std::string& run_directory, int64_t step,
                           const std::string& settings, int64_t most) {
  const std::string log_directory = JoinPath(run_directory, "log");
  const std::string path = JoinPath(log_directory, kFile);
  const bool began_before = fs.Exists(path);
  const json before = json::parse(fs.ReadFile(path).value_or(""), nullptr, false);
  const std::string failure = began_before ? TakeFailure(fs, log_directory) : "";
  const std::string digest = Sha256Hex(settings);
  int64_t count = 0;
  if (before.is_object() && !failure.empty() && before.value("step", int64_t{-1}) == step &&
      before.value("settings", "") == digest) {
    const bool same = WithoutNumbers(before.value("failure", "")) == WithoutNumbers(failure);
    count = same ? before.value("count", int64_t{0}) + 1 : 1;
  }
  if (most > 0 && count >= most) {
    return CheckpointError(
        absl::StrCat(run_directory, ": ", count, " starts in a row from ",
                     step == 0 ? "the beginning" : absl::StrCat("checkpoint step-", step),
                     " ended in the same way: ", failure,
                     ". Change what causes it, or move the checkpoint away; ",
                     "after a cause outside of the settings remove ", path,
                     " to try again "
                     "(checkpoint.most_restarts)"));
  }
  const json now = {{"step", step}, {"settings", digest}, {"failure", failure}, {"count", count}};
  absl::Status written = fs.MakeDirectories(log_directory);
  if (written.ok()) written = WriteFileDurably(fs, path, now.dump() + "\n");
  return Reclassify(written, ExitCode::kCheckpoint);
}

}  // namespace osler
