// A Chrome trace of what the CPU and the GPU do in one step, by LibTorch's profiler: for
// chrome://tracing or Perfetto. Operations, kernels and the blocks of the walk stand on one axis of
// time. Costs time while it is on.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/status.h"

namespace osler {

// One at a time in a process. Not thread-safe.
class StepTrace {
 public:
  // From now on, of this thread and of a device's.
  explicit StepTrace(at::Device device);
  ~StepTrace();  // drops what was not saved
  StepTrace(const StepTrace&) = delete;
  // Ends it and writes it to `path`, by LibTorch's own file code.
  absl::Status Save(const std::string& path);

 private:
  bool on_ = false;
};

}  // namespace osler
