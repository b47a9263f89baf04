#include "kernels/cuda/rows/launch.h"

namespace osler::cuda {
namespace {

constexpr int kColumns = 32, kSlices = 16;

__global__ void __launch_bounds__(kColumns* kSlices)
    SumColumnsKernel(const float* parts, int count, int width, float* out) {
  __shared__ float sums[kSlices][kColumns];
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  const int column = static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
  float sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int part = static_cast<int>(threadIdx.y); part < count; part += kSlices) {
      sum += parts[int64_t{part} * width + column];
    }
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  for (int slice = 1; slice < kSlices; ++slice) sum += sums[slice][threadIdx.x];
  out[column] = sum;
}

}  // namespace

int SumColumns(const float* parts, int count, int width, float* out, cudaStream_t stream) {
  if (width == 0) return cudaSuccess;
  // The blocks may be on their way before the kernel that makes the parts has ended; they wait for
  // it.
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(CeilDiv(width, kColumns)));
  config.blockDim = dim3(kColumns, kSlices);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = ComputeCapabilityMajor() == 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, SumColumnsKernel, parts, count, width, out);
}

}  // namespace osler::cuda
