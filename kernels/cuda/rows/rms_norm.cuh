// What the forward and the backward kernel of RMS normalisation share.
#pragma once

#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rows/launch.h"
#include "kernels/cuda/rows/reduce.cuh"

namespace osler::cuda {

inline constexpr int kMaxNormWidth = 16384;

// A row is held in the registers of a group of threads, so many elements in each.
inline unsigned GroupThreads(int width, int thread_elements) {
  return static_cast<unsigned>(32 * CeilDiv(width, int64_t{32} * thread_elements));
}

}  // namespace osler::cuda
