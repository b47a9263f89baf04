// NCCL and CUDA's run-time library, loaded when they are asked for, so that osler starts on
// machines that have neither.
#pragma once

#include <c10/core/DeviceType.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <memory>

#include "absl/status/statusor.h"

namespace osler {

// The functions under their own names less the prefix. Stays loaded.
struct NcclLibrary {
  at::DeviceType memory = at::kCUDA;  // of the tensors that it works on

  decltype(&::ncclGetVersion) ncclGetVersion;
  decltype(&::ncclGetErrorString) ncclGetErrorString;
  decltype(&::ncclGetUniqueId) ncclGetUniqueId;
  decltype(&::ncclCommInitRankConfig) ncclCommInitRankConfig;
  decltype(&::ncclCommGetAsyncError) ncclCommGetAsyncError;
  decltype(&::ncclCommFinalize) ncclCommFinalize;
  decltype(&::ncclCommDestroy) ncclCommDestroy;
  decltype(&::ncclCommAbort) ncclCommAbort;
  decltype(&::ncclGroupStart) ncclGroupStart;
  decltype(&::ncclGroupEnd) ncclGroupEnd;
  decltype(&::ncclAllReduce) ncclAllReduce;
  decltype(&::ncclAllGather) ncclAllGather;
  decltype(&::ncclReduceScatter) ncclReduceScatter;
  decltype(&::ncclBroadcast) ncclBroadcast;
  decltype(&::ncclSend) ncclSend;
  decltype(&::ncclRecv) ncclRecv;

  decltype(&::cudaGetErrorString) cudaGetErrorString;
  decltype(&::cudaGetDeviceCount) cudaGetDeviceCount;
  decltype(&::cudaSetDevice) cudaSetDevice;
  cudaError_t (*cudaMalloc)(void**, size_t);
  decltype(&::cudaFree) cudaFree;
  decltype(&::cudaMemcpyAsync) cudaMemcpyAsync;
  decltype(&::cudaStreamCreateWithFlags) cudaStreamCreateWithFlags;
  decltype(&::cudaStreamDestroy) cudaStreamDestroy;
  cudaError_t (*cudaStreamWaitEvent)(cudaStream_t, cudaEvent_t, unsigned);
  cudaError_t (*cudaEventCreateWithFlags)(cudaEvent_t*, unsigned);
  cudaError_t (*cudaEventRecord)(cudaEvent_t, cudaStream_t);
  decltype(&::cudaEventQuery) cudaEventQuery;
  decltype(&::cudaEventDestroy) cudaEventDestroy;
};

// Device error: names the library or function that is missing.
absl::StatusOr<std::shared_ptr<const NcclLibrary>> LoadNccl();

}  // namespace osler
