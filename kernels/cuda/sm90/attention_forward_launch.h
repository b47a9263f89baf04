// One function a padded width, each in a file of its own so that they compile side by side.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention.h"

namespace osler::cuda::sm90 {

int LaunchForward64(const AttentionForward& arguments, cudaStream_t stream);
int LaunchForward128(const AttentionForward& arguments, cudaStream_t stream);
int LaunchForward256(const AttentionForward& arguments, cudaStream_t stream);

}  // namespace osler::cuda::sm90
