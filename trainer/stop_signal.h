// Requests to stop: TERM, INT, USR1 and USR2 (what schedulers send before they kill).
#pragma once

namespace osler {

// Installs handlers that only set a flag; a second INT ends the process at once. Call once, early,
// in main's thread.
void InstallStopSignals();

// Whether a stop was asked for since then. Async-signal-safe, thread-safe.
bool StopRequested();

}  // namespace osler
