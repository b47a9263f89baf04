// The only seam between exceptions (LibTorch, standard library) and absl::Status.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace osler {

// Runs `body`; an exception it throws becomes a status: out of memory → device class (4), a
// communication error → device class (4), anything else → bug class (70). A c10::Error keeps its
// first line only. Thread-safe.
absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body);

}  // namespace osler
