#include "base/failpoint.h"

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
    armed.push_back(one);
  }
  return armed;
}

void Act(const std::string& action) {
  if (action == "kill") kill(getpid(), SIGKILL);
  if (action == "term") kill(getpid(), SIGTERM);
  double seconds = 0;
  if (action.rfind("stop:", 0) == 0 && absl::SimpleAtod(action.substr(5), &seconds)) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
}

}  // namespace

void Failpoint(std::string_view phase) {
  static std::vector<Armed> armed = Parse();
  if (armed.empty()) return;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  for (Armed& one : armed) {
    if (one.phase == phase && ++one.seen == one.visit) Act(one.action);
  }
}

}  // namespace osler
