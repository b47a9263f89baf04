// A point in a stream.
#pragma once

#include <memory>

#include "parallel/nccl/nccl_library.h"

namespace osler {

// The stream that torch uses unless told otherwise.
inline constexpr cudaStream_t kDefaultStream = nullptr;

// Thread-safe once recorded.
class NcclEvent {
 public:
  explicit NcclEvent(std::shared_ptr<const NcclLibrary> library) : library_(std::move(library)) {
    library_->cudaEventCreateWithFlags(&event_, cudaEventDisableTiming);
  }
  ~NcclEvent() { library_->cudaEventDestroy(event_); }
  NcclEvent(const NcclEvent&) = delete;

  void Record(cudaStream_t stream) const { library_->cudaEventRecord(event_, stream); }
  // What comes later in the stream waits for the event; the caller does not.
  void HoldBack(cudaStream_t stream) const { library_->cudaStreamWaitEvent(stream, event_, 0); }
  cudaError_t Query() const { return library_->cudaEventQuery(event_); }

 private:
  const std::shared_ptr<const NcclLibrary> library_;
  cudaEvent_t event_ = nullptr;
};

}  // namespace osler
