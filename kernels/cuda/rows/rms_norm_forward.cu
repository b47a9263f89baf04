#include "kernels/cuda/rows/rms_norm.cuh"

namespace osler::cuda {
namespace {

template <int kLanes>
constexpr int kThreadElements = kLanes == 1 ? 16 : 32;

template <typename T, int kLanes>
__device__ Pack<T, kLanes> Sum(const Pack<T, kLanes>& a, const Pack<T, kLanes>& b) {
  float sum[kLanes];
#pragma unroll
  for (int i = 0; i < kLanes; ++i) sum[i] = a[i] + b[i];
  return Narrowed<T, kLanes>(sum);
}

template <typename T, int kLanes>
__global__ void __launch_bounds__(kMaxNormWidth / kThreadElements<kLanes>)
    RmsNormForwardKernel(const RmsNormForward in, const bool weight_fp32) {
  constexpr int kPacks = kThreadElements<kLanes> / kLanes;
  __shared__ float scratch[kMaxWarps];
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= in.rows) return;
  const int64_t begin = row * in.width;
  const int step = static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(threadIdx.x) * kLanes;

  Pack<T, kLanes> x[kPacks], residual[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i >= in.width) continue;
    x[k] = LoadPack<T, kLanes>(in.x, begin + i);
    if (in.residual != nullptr) residual[k] = LoadPack<T, kLanes>(in.residual, begin + i);
  }
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i >= in.width) continue;
    if (in.sum != nullptr) {
      x[k] = Sum(x[k], residual[k]);
      StorePack(in.sum, begin + i, x[k]);
    }
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) squares += x[k][lane] * x[k][lane];
  }
  squares = GroupSum<Barrier::kOfBlock>(squares, scratch);
  const float r = 1 / sqrtf(squares / static_cast<float>(in.width) + in.eps);
  if (threadIdx.x == 0) in.inverse_rms[row] = r;

  const bool add = in.residual != nullptr && in.sum == nullptr;
  const float offset = in.style == NormStyle::kGemma ? 1.0F : 0.0F;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i >= in.width) continue;
    float v[kLanes];
    LoadWeight<T, kLanes>(in.weight, weight_fp32, i, offset, v);
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      v[lane] *= Normalised(x[k], lane, r, in.style);
      if (add) v[lane] = Rounded<T>(v[lane]) + residual[k][lane];
    }
    StorePack(in.y, begin + i, Narrowed<T, kLanes>(v));
  }
}

template <typename T, int kLanes>
int LaunchWith(const RmsNormForward& in, cudaStream_t stream) {
  const unsigned group = GroupThreads(in.width, kThreadElements<kLanes>);
  const dim3 block(group, group == 32 ? 4 : 1);
  const auto blocks = static_cast<unsigned>(CeilDiv(in.rows, block.y));
  RmsNormForwardKernel<T, kLanes>
      <<<blocks, block, 0, stream>>>(in, in.weight_element == Element::kFp32);
  return cudaGetLastError();
}

template <typename T>
int Launch(const RmsNormForward& in, cudaStream_t stream) {
  constexpr int kWide = kWideLanes<T>;
  const bool wide =
      in.width % kWide == 0 && AllAligned16(in.x, in.residual, in.weight, in.sum, in.y);
  return wide ? LaunchWith<T, kWide>(in, stream) : LaunchWith<T, 1>(in, stream);
}

}  // namespace
}  // namespace osler::cuda

int osler_rms_norm_forward(const osler::cuda::RmsNormForward* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const RmsNormForward& in = *arguments;
  if (in.width < 0 || in.width > kMaxNormWidth) return kUnsupported;
  if (in.weight_element != in.element && in.weight_element != Element::kFp32) return kUnsupported;
  if (in.rows == 0 || in.width == 0) return cudaSuccess;
  return ForElement(in.element, [&](auto element) {
    return Launch<decltype(element)>(in, static_cast<cudaStream_t>(stream));
  });
}
