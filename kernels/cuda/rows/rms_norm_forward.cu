#include "kernels/cuda/rows/rms_norm.cuh"

namespace osler::cuda {
namespace {

constexpr int kMinThreads = 128;  // of a block, if its rows are short

template <int kLanes>
constexpr int kThreadElements = kLanes == 1 ? 16 : 32;

template <typename T, int kLanes>
__device__ float Squares(const Pack<T, kLanes>& x) {
  float even = 0;
  float odd = 0;
#pragma unroll
  for (int i = 0; i < kLanes; i += 2) {
    even += x[i] * x[i];
    if (i + 1 < kLanes) odd += x[i + 1] * x[i + 1];
  }
  return even + odd;
}

// v is the weight, and becomes the result.
template <typename T, int kLanes>
__device__ void Normalise(const Pack<T, kLanes>& x, float r, NormStyle style, float (&v)[kLanes]) {
  if (style == NormStyle::kPlain) {
    float normed[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) normed[i] = x[i] * r;
    const Pack<T, kLanes> rounded = Narrowed<T, kLanes>(normed);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] *= rounded[i];
  } else {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = fmaf(v[i], x[i] * r, x[i] * r);
  }
}

template <typename T, int kLanes>
__global__ void __launch_bounds__(kMaxNormWidth / kThreadElements<kLanes>)
    RmsNormForwardKernel(const RmsNormForward in, const bool weight_fp32) {
  constexpr int kPacks = kThreadElements<kLanes> / kLanes;
  constexpr bool kHoldsResidual = kLanes > 1;
  __shared__ float scratch[kMaxWarps];
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  // Of a row that there is not a block's threads have no part, but they wait for the others.
  const int width = row < in.rows ? in.width : 0;
  const int64_t begin = row * in.width;
  const int step = static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(threadIdx.x) * kLanes;

  Pack<T, kLanes> x[kPacks], residual[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i >= width) continue;
    x[k] = LoadPack<T, kLanes>(in.x, begin + i);
    if (kHoldsResidual && in.residual != nullptr)
      residual[k] = LoadPack<T, kLanes>(in.residual, begin + i);
  }
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i >= width) continue;
    if (in.sum != nullptr) {
      if (!kHoldsResidual) residual[k] = LoadPack<T, kLanes>(in.residual, begin + i);
      x[k] = Sum(x[k], residual[k]);
      StorePack(in.sum, begin + i, x[k]);
    }
    squares += Squares(x[k]);
  }
  squares = GroupSum<Barrier::kOfBlock>(squares, scratch);
  const float r = rsqrtf(squares / static_cast<float>(in.width) + in.eps);
  if (threadIdx.x == 0 && width != 0) in.inverse_rms[row] = r;

  const bool add = in.residual != nullptr && in.sum == nullptr;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i >= width) continue;
    if (!kHoldsResidual && add) residual[k] = LoadPack<T, kLanes>(in.residual, begin + i);
    float v[kLanes];
    LoadWeight<T>(in.weight, weight_fp32, i, v);
    Normalise(x[k], r, in.style, v);
    Pack<T, kLanes> y = Narrowed<T, kLanes>(v);
    if (add) y = Sum(y, residual[k]);
    StorePack(in.y, begin + i, y);
  }
}

template <typename T, int kLanes>
int LaunchWith(const RmsNormForward& in, cudaStream_t stream) {
  const unsigned group = GroupThreads(in.width, kThreadElements<kLanes>);
  const dim3 block(group, std::max(kMinThreads / group, 1U));
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
