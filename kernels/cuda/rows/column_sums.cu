#include "kernels/cuda/rows/launch.h"

namespace osler::cuda {
namespace {

constexpr int kColumns = 32, kSlices = 8;

__global__ void __launch_bounds__(kColumns* kSlices)
    SumColumnsKernel(const float* parts, int count, int width, float* out) {
  __shared__ float sums[kSlices][kColumns];
  const int column = static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
  float sum = 0;
  if (column < width) {
#pragma unroll 4
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
  const auto blocks = static_cast<unsigned>(CeilDiv(width, kColumns));
  SumColumnsKernel<<<blocks, dim3(kColumns, kSlices), 0, stream>>>(parts, count, width, out);
  return cudaGetLastError();
}

}  // namespace osler::cuda
