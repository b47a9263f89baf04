// The CUDA device of this process: found, opened and described here, and nowhere else.
//
// LibTorch's CUDA part is no dependency of the program, since CPU runs would pay for it at every
// start. OpenCudaDevice loads it, before the process does anything with CUDA tensors; from then on
// they are tensors like others.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace osler {

// How many devices the driver shows: 0 without a driver, and in a build without CUDA. Opens
// nothing.
int CudaDeviceCount();

struct CudaDevice {
  at::Device device = at::kCPU;
  std::string name;       // "NVIDIA H200"
  int capability = 0;     // 10 · major + minor
  double bf16_flops = 0;  // dense products, a second, by the data sheet; 0: not known
};

// Makes device `index` the current one of this thread, and the process deterministic: fixed cuBLAS
// workspaces, deterministic algorithms. A device error says what is missing; so does a value of
// OSLER_ATTENTION that names no kernels. Once a process.
absl::StatusOr<CudaDevice> OpenCudaDevice(int index);

// The stream that torch uses now in this thread on x's device: a cudaStream_t.
void* CudaStreamOf(const at::Tensor& x);

// A copy of a CPU tensor that holds up neither the caller nor what the device computes: by way of
// pinned memory, in a stream of its own, which the thread's current stream waits for from here on.
// On the CPU the tensor itself.
at::Tensor ToDevice(const at::Tensor& on_cpu, at::Device device);

// The most that tensors have taken of the device's memory so far; 0 on the CPU.
int64_t PeakDeviceBytes(at::Device device);

}  // namespace osler
