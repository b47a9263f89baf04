// What went wrong with a checkpoint, told as such.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "base/errors.h"

namespace osler {

// Of the checkpoint class and with "prefix: " before the message; OK stays OK.
inline absl::Status AsCheckpointError(const absl::Status& status, const std::string& prefix) {
  return Annotate(Reclassify(status, ExitCode::kCheckpoint), prefix);
}

}  // namespace osler
