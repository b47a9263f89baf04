// Launching a kernel with more shared memory than comes by itself.
#pragma once

#include <cuda_runtime.h>

namespace osler::cuda::sm80 {

inline unsigned Tiles(int rows, int tile) {
  return static_cast<unsigned>((rows + tile - 1) / tile);
}

// What a block of this device can have; 0 for none.
inline int SharedBytesPerBlock() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  return cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) ==
                 cudaSuccess
             ? bytes
             : 0;
}

// An empty grid is no error: there is nothing to do.
template <int kThreads, int kSharedBytes, class... Arguments, class... Given>
cudaError_t Launch(void (*kernel)(Arguments...), dim3 grid, cudaStream_t stream, Given... given) {
  if (grid.x == 0 || grid.y == 0) return cudaSuccess;
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  kernel<<<grid, kThreads, kSharedBytes, stream>>>(given...);
  return cudaGetLastError();
}

}  // namespace osler::cuda::sm80
