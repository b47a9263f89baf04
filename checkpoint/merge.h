// A checkpoint of many ranks as one of whole tensors, for other programs and for archives.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/fs.h"

namespace osler {

// Writes the checkpoint in `step_directory` (verified) to OUTPUT/step-N, one file a group, with the
// names and texts it has; one tensor at a time is in memory. Checkpoint errors: damage, a step-N
// that is there already, no room.
absl::Status MergeCheckpoint(Fs& fs, const std::string& step_directory, int64_t step,
                             const std::string& output);

}  // namespace osler
