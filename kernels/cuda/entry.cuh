// What kernels' entry points share: the current device's attributes, and a launch with more shared
// memory than comes by itself. For .cu files of kernels/cuda/.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace osler::cuda {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of the current device; 0 where it cannot be asked.
inline int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess) {
    return 0;
  }
  return value;
}

inline int Multiprocessors() {
  return std::max(DeviceAttribute(cudaDevAttrMultiProcessorCount), 1);
}
inline int ComputeCapabilityMajor() { return DeviceAttribute(cudaDevAttrComputeCapabilityMajor); }

// The attribute is the current device's, so it is set at every launch.
template <class... Arguments, class... Given>
cudaError_t LaunchWithShared(void (*kernel)(Arguments...), dim3 grid, dim3 block, int shared_bytes,
                             cudaStream_t stream, const Given&... given) {
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (allowed != cudaSuccess) return allowed;
  kernel<<<grid, block, shared_bytes, stream>>>(given...);
  return cudaGetLastError();
}

}  // namespace osler::cuda
