// The side files of an export: everything of the base model that is not weights.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "base/fs.h"

namespace osler {

// Copies each side file of directory `base` into directory `output`, byte for byte and synced.
// `index_file` is the base's index of shards ("" when single). Links are followed to regular files;
// what is left out and is not weights is noted in the log. Errors have no class.
absl::Status CopySideFiles(Fs& fs, const std::string& base, const std::string& output,
                           const std::string& index_file);

}  // namespace osler
