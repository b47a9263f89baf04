// The flags that say which rank of a run this process is, for commands that run on several ranks.
#pragma once

#include <CLI/CLI.hpp>

#include "parallel/launch.h"

namespace osler {

// --rank, --world-size and --master; `flags` must outlive the parsing.
void AddLaunchFlags(CLI::App& command, LaunchFlags& flags);

}  // namespace osler
