// Copies from device memory to shared memory that their thread does not wait for (cp.async).
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/rows/pack.cuh"

namespace osler::cuda {

// 16 bytes or a multiple; a pack of one element is copied at once instead.
template <typename T, int kLanes>
__device__ inline void CopyPackAsync(Pack<T, kLanes>* shared, const void* base, int64_t element) {
  if constexpr (kLanes == 1) {
    *shared = LoadPack<T, 1>(base, element);
  } else {
    const char* from = static_cast<const char*>(base) + element * T::kBytes;
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
#pragma unroll
    for (int i = 0; i < Pack<T, kLanes>::kBytes; i += 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + i), "l"(from + i)
                   : "memory");
    }
  }
}

// Ends a group of copies.
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all of this thread's groups but the last kLeft have arrived.
template <int kLeft>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace osler::cuda
