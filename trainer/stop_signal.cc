#include "trainer/stop_signal.h"

#include <signal.h>

#include <atomic>

namespace osler {
namespace {

// Signal handlers can reach nothing but process-wide state.
std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void OnSignal(int number) {
  if (number == SIGINT && stop_requested) {
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
  }
  stop_requested = true;
}

}  // namespace

void InstallStopSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) sigaction(number, &action, nullptr);
}

bool StopRequested() { return stop_requested; }

}  // namespace osler
