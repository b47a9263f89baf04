// Named places where a test can make a process fail: Failpoint("manifest").
//
// OSLER_FAILPOINTS="phase[@n]=action[,…]" arms them; `n` counts visits from 1 (default 1). Actions:
//   kill   SIGKILL to this process         term  SIGTERM to this process
//   stop:S sleep S seconds
// OSLER_FAILPOINT_TRACE=FILE keeps the name of the phase visited last in FILE, so that whoever
// kills the process from outside can tell where it stood. Unset (always, outside tests), a visit
// costs one branch. Thread-safe.
#pragma once

#include <string_view>

namespace osler {

void Failpoint(std::string_view phase);

}  // namespace osler
