// Counts the bytes of CPU tensors that the calling thread makes and frees.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

namespace osler::testing {

// From its construction to its end, on this thread. Tensors of the threads inside a kernel are not
// seen.
class TensorMemory {
 public:
  TensorMemory()
      : counts_(std::make_shared<Counts>()), guard_(c10::DebugInfoKind::PROFILER_STATE, counts_) {}
  // Bytes made and not yet freed; negative when older tensors were freed.
  int64_t live() const { return counts_->live; }
  // The most that was live at once since the start or the last call.
  int64_t TakePeak() { return std::exchange(counts_->peak, counts_->live); }

 private:
  struct Counts final : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
      live += bytes;  // negative when memory is freed
      peak = std::max(peak, live);
    }
    bool memoryProfilingEnabled() const override { return true; }
    int64_t live = 0, peak = 0;
  };
  std::shared_ptr<Counts> counts_;
  c10::DebugInfoGuard guard_;
};

}  // namespace osler::testing
