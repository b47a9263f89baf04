// Launching a kernel over tiles.
#pragma once

#include "kernels/cuda/entry.cuh"

namespace osler::cuda::sm80 {

inline unsigned Tiles(int rows, int tile) { return static_cast<unsigned>(CeilDiv(rows, tile)); }

// What a block of this device can have; 0 for none.
inline int SharedBytesPerBlock() {
  return DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

// An empty grid is no error: there is nothing to do.
template <int kThreads, int kSharedBytes, class... Arguments, class... Given>
cudaError_t Launch(void (*kernel)(Arguments...), dim3 grid, cudaStream_t stream,
                   const Given&... given) {
  if (grid.x == 0 || grid.y == 0) return cudaSuccess;
  return LaunchWithShared(kernel, grid, kThreads, kSharedBytes, stream, given...);
}

}  // namespace osler::cuda::sm80
