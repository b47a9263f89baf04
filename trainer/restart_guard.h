// Stops a run that fails again and again from the same checkpoint.
//
// RUN_DIR/log/restarts.json counts how often in a row the run was started from one step and
// ended in the same way without a newer checkpoint: the same exit code and message (numbers aside),
// or no word at all (killed, crashed, out of memory). A newer checkpoint, another failure or other
// settings begin the count again.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/fs.h"

namespace osler {

// Call once a start, on the first rank, when it is known which step the run goes on from (0: the
// beginning). `settings` identifies what the user can change. A checkpoint error that names the
// checkpoint and the failure after `most` such ends; 0: never. The exit records of the last run are
// taken away, for this one to leave its own.
absl::Status CheckRestarts(Fs& fs, const std::string& run_directory, int64_t step,
                           const std::string& settings, int64_t most);

}  // namespace osler
