#include "kernels/cuda/device.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <cstdlib>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/status_macros.h"
#include "base/torch_status.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/device_query.h"

namespace osler {
namespace {

constexpr char kTorchCuda[] = "libtorch_cuda.so";
constexpr int kLeastCapability = 80;  // bf16 matrix units

const c10::impl::DeviceGuardImplInterface& Guard() {
  return *c10::impl::getDeviceGuardImpl(at::kCUDA);
}

// What copies to the device run in, beside those that compute.
c10::Stream CopyStream(at::Device device) {
  static const c10::Stream stream = Guard().getStreamFromGlobalPool(device);  // a process has one
  return stream;
}

// Dense bf16 products of the SXM forms, where a name does not say more.
double Bf16Flops(std::string_view name) {
  struct Row {
    const char* part;
    double teraflops;
  };
  static constexpr Row kRows[] = {{"H100 PCIe", 756}, {"H100 NVL", 835}, {"H100", 989.4},
                                  {"H200", 989.4},    {"H800", 989.4},   {"GH200", 989.4},
                                  {"B200", 2250},     {"A100", 312},     {"A800", 312},
                                  {"L40S", 362},      {"A40", 149.7},    {"A10", 125}};
  for (const Row& row : kRows) {
    if (name.find(row.part) != std::string_view::npos) return row.teraflops * 1e12;
  }
  return 0;
}

absl::StatusOr<CudaDevice> Describe(int index) {
  int count = 0;
  if (const int error = osler_cuda_device_count(&count); error != 0)
    return DeviceError(absl::StrCat("there is no GPU: CUDA says: ", osler_cuda_error_text(error)));
  if (index >= count) {
    return DeviceError(absl::StrCat("GPU ", index, " is wanted, but this host has ", count,
                                    ": start as many ranks on a host as it has GPUs"));
  }
  CudaDevice found;
  char name[256];
  if (const int error =
          osler_cuda_device_facts(index, name, static_cast<int>(sizeof name), &found.capability);
      error != 0)
    return DeviceError(absl::StrCat("GPU ", index, ": CUDA says: ", osler_cuda_error_text(error)));
  found.device = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
  found.name = name;
  found.bf16_flops = Bf16Flops(found.name);
  if (found.capability >= kLeastCapability) return found;
  return DeviceError(absl::StrCat("GPU ", index, ", ", found.name, ", has compute capability ",
                                  found.capability / 10, ".", found.capability % 10,
                                  "; 8.0 or more is wanted"));
}

absl::Status LoadTorchCuda() {
  // Read when the library starts. A fixed workspace keeps cuBLAS deterministic.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True", /*overwrite=*/0);
  // Queues of the device, 8 unless told otherwise: streams that share one wait for each other, and
  // every group of ranks has a stream of its own.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/0);
  if (dlopen(kTorchCuda, RTLD_NOW | RTLD_GLOBAL) != nullptr) return absl::OkStatus();
  return DeviceError(absl::StrCat(kTorchCuda, " cannot be loaded (", dlerror(),
                                  "): install the torch wheel with CUDA"));
}

}  // namespace

int CudaDeviceCount() {
  int count = 0;
  osler_cuda_device_count(&count);
  return count;
}

absl::StatusOr<CudaDevice> OpenCudaDevice(int index) {
  OSLER_RETURN_IF_ERROR(AttentionChoiceOfEnvironment().status());
  OSLER_ASSIGN_OR_RETURN(const CudaDevice found, Describe(index));
  OSLER_RETURN_IF_ERROR(LoadTorchCuda());
  const absl::Status ready = CatchTorch([&] {
    Guard().setDevice(found.device);
    at::globalContext().lazyInitDevice(at::kCUDA);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
    at::globalContext().setAllowBF16ReductionCuBLAS(false);  // sums of parts in fp32
    return absl::OkStatus();
  });
  if (!ready.ok()) return Reclassify(ready, ExitCode::kDevice);
  return found;
}

void* CudaStreamOf(const at::Tensor& x) { return Guard().getStream(x.device()).native_handle(); }

at::Tensor ToDevice(const at::Tensor& on_cpu, at::Device device) {
  if (device.is_cpu()) return on_cpu;
  const c10::Stream compute = Guard().getStream(device), copies = CopyStream(device);
  const at::Tensor pinned = on_cpu.pin_memory();
  at::Tensor there;
  {
    const c10::StreamGuard guard(copies);
    there = pinned.to(device, /*non_blocking=*/true);
  }
  c10::Event arrival(device.type());
  arrival.record(copies);
  arrival.block(compute);
  // Memory of the one stream that is given back waits for the other.
  Guard().recordDataPtrOnStream(there.storage().data_ptr(), compute);
  return there;
}

int64_t PeakDeviceBytes(at::Device device) {
  if (device.is_cpu()) return 0;
  return c10::getDeviceAllocator(device.type())
      ->getDeviceStats(device.index())
      .allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)]
      .peak;
}

}  // namespace osler
