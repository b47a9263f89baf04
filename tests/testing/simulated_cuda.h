// The part of CUDA's run-time library that NCCL groups use, in the memory of this process: a stream
// is a thread with a queue (simulated_nccl.h).
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "parallel/nccl/nccl_library.h"

namespace osler::testing {

// Fills the functions of CUDA. While `default_stream_waits`, what holds the default stream back
// holds the calling thread.
void SimulateCuda(const std::atomic<bool>& default_stream_waits, NcclLibrary& library);

// At the end of a stream, which is not the default one.
void PushTo(cudaStream_t stream, std::function<void()> task);

// Handles are pointers to shared pointers.
template <typename Object, typename Handle>
std::shared_ptr<Object>& Get(Handle handle) {
  return *reinterpret_cast<std::shared_ptr<Object>*>(handle);
}
template <typename Handle, typename Object>
Handle MakeHandle(std::shared_ptr<Object> object) {
  return reinterpret_cast<Handle>(new std::shared_ptr<Object>(std::move(object)));
}

}  // namespace osler::testing
