#include "base/failpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/check.h"

namespace osler {
namespace {

struct Armed {
  std::string phase, action;
  int visit = 1, seen = 0;
};

bool StopSeconds(const std::string& action, double& seconds) {
  return action.rfind("stop:", 0) == 0 && absl::SimpleAtod(action.substr(5), &seconds);
}

// A misspelt action would make a test pass for want of its fault.
bool IsAction(const std::string& action) {
  double seconds = 0;
  return action == "kill" || action == "term" || StopSeconds(action, seconds);
}

std::vector<Armed> Parse() {
  std::vector<Armed> armed;
  const char* text = std::getenv("OSLER_FAILPOINTS");
  if (text == nullptr) return armed;
  for (absl::string_view item : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(item, absl::MaxSplits('=', 1));
    Armed one;
    const std::vector<std::string> place = absl::StrSplit(parts.first, '@');
    one.phase = place[0];
    if (place.size() == 2) OSLER_CHECK(absl::SimpleAtoi(place[1], &one.visit));
    one.action = parts.second;
    OSLER_CHECK(!one.phase.empty() && one.visit >= 1 && IsAction(one.action));
    armed.push_back(one);
  }
  return armed;
}

void Act(const std::string& action) {
  if (action == "kill") kill(getpid(), SIGKILL);
  if (action == "term") kill(getpid(), SIGTERM);
  double seconds = 0;
  if (StopSeconds(action, seconds)) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
}

int OpenTrace() {
  const char* path = std::getenv("OSLER_FAILPOINT_TRACE");
  return path == nullptr ? -1 : open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
}

void Trace(int fd, std::string_view phase) {
  std::string line(phase);
  line.resize(31, ' ');  // one write of fixed length replaces the earlier name
  OSLER_CHECK(pwrite(fd, (line + "\n").data(), 32, 0) == 32);
}

}  // namespace

void Failpoint(std::string_view phase) {
  static std::vector<Armed> armed = Parse();
  static const int trace = OpenTrace();
  if (trace >= 0) Trace(trace, phase);
  if (armed.empty()) return;
  std::vector<std::string> actions;
  {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    for (Armed& one : armed) {
      if (one.phase == phase && ++one.seen == one.visit) actions.push_back(one.action);
    }
  }
  for (const std::string& action : actions)
    Act(action);  // unlocked: a stopped thread stops no other
}

}  // namespace osler
