#include "kernels/cuda/device_query.h"

#include <cuda_runtime_api.h>

#include <cstdio>

int osler_cuda_device_count(int* count) {
  *count = 0;
  const cudaError_t result = cudaGetDeviceCount(count);
  if (result != cudaSuccess) *count = 0;
  return result;
}

int osler_cuda_device_facts(int device, char* name, int size, int* capability) {
  cudaDeviceProp properties{};
  const cudaError_t result = cudaGetDeviceProperties(&properties, device);
  if (result != cudaSuccess) return result;
  std::snprintf(name, static_cast<size_t>(size), "%s", properties.name);
  *capability = 10 * properties.major + properties.minor;
  return cudaSuccess;
}

const char* osler_cuda_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
