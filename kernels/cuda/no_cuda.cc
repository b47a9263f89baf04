// What stands in for this folder in a build without CUDA: there is no device, and so no tensor on
// one.
#include <c10/util/Exception.h>

#include "base/errors.h"
#include "kernels/cuda/adamw_cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/interval_attention_cuda.h"
#include "kernels/cuda/rows_cuda.h"

namespace osler {
namespace {

constexpr char kWithout[] =
    "this osler was built without CUDA: build it where nvcc is found (OSLER_CUDA=ON)";

}  // namespace

int CudaDeviceCount() { return 0; }
absl::StatusOr<CudaDevice> OpenCudaDevice(int) { return DeviceError(kWithout); }
void* CudaStreamOf(const at::Tensor&) { TORCH_CHECK(false, kWithout); }
at::Tensor ToDevice(const at::Tensor& on_cpu, at::Device) { return on_cpu; }
int64_t PeakDeviceBytes(at::Device) { return 0; }

AttentionOutput IntervalAttentionForwardCuda(const IntervalAttentionInput&, at::ScalarType) {
  TORCH_CHECK(false, kWithout);
}
IntervalAttentionGradients IntervalAttentionBackwardCuda(const AttentionOutput&,
                                                         const IntervalAttentionInput&,
                                                         const AttentionOutput&, at::ScalarType) {
  TORCH_CHECK(false, kWithout);
}
void TestAttention(const AttentionShape&) {}

const RowKernels& CudaRowKernels() { TORCH_CHECK(false, kWithout); }
void MergeAttentionCuda(const AttentionOutput&, const AttentionOutput&) {
  TORCH_CHECK(false, kWithout);
}
void AddRowsCuda(at::Tensor&, const at::Tensor&, const at::Tensor&) {
  TORCH_CHECK(false, kWithout);
}

bool AdamWCuda(const std::vector<AdamWItem>&, const AdamWNumbers&) { return false; }
at::Tensor SquaresSumCuda(const std::vector<at::Tensor>&) { return {}; }

}  // namespace osler
