#include "kernels/cuda/rows/rms_norm.cuh"

namespace osler::cuda {
namespace {

constexpr int kThreads = 512, kThreadElements = 32;
static_assert(kThreads * kThreadElements == kMaxNormWidth);

// Of a row: what its threads hold. grad_sum is read early where registers allow it.
template <typename T, int kLanes>
struct RowPacks {
  static constexpr bool kHoldsSum = kLanes == 8;
  static constexpr int kPacks = kThreadElements / kLanes;
  Pack<T, kLanes> grad[kPacks], x[kPacks], grad_sum[kPacks];

  __device__ void Load(const RmsNormBackward& in, int64_t begin, int first, int step) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int i = first + k * step;
      if (i >= in.width) continue;
      grad[k] = LoadPack<T, kLanes>(in.grad, begin + i);
      x[k] = LoadPack<T, kLanes>(in.x, begin + i);
      if (kHoldsSum && in.grad_sum != nullptr)
        grad_sum[k] = LoadPack<T, kLanes>(in.grad_sum, begin + i);
    }
  }

  // Σ grad · gain · x over this thread's elements.
  __device__ float Dot(const float* gain, int width, int first, int step) const {
    float dot = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int i = first + k * step;
      if (i >= width) continue;
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) dot += grad[k][lane] * gain[i + lane] * x[k][lane];
    }
    return dot;
  }
};

// Each block's share of the weight's gradient goes to parts[blockIdx.x]. With d the gradient of the
// normalised value n = x·r, ∂x = r·d − c·x with c = mean(d x)·r³.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kThreads)
    RmsNormBackwardKernel(const RmsNormBackward in, const bool weight_fp32, float* parts) {
  constexpr int kPacks = kThreadElements / kLanes;
  extern __shared__ float4 shared[];
  __shared__ float scratch[2][kThreads / 32][kMaxWarps];
  float* gain = reinterpret_cast<float*>(shared);  // [width], then the sum of the groups' shares
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const float offset = in.style == NormStyle::kGemma ? 1.0F : 0.0F;
  for (int i = thread; i < in.width; i += threads) {
    LoadWeight<T, 1>(in.weight, weight_fp32, i, offset, *reinterpret_cast<float(*)[1]>(gain + i));
  }
  __syncthreads();

  const int step = static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(threadIdx.x) * kLanes;
  float sums[kPacks][kLanes] = {};
  int turn = 0;
  for (int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; row < in.rows;
       row += int64_t{gridDim.x} * blockDim.y, turn ^= 1) {
    RowPacks<T, kLanes> own;
    own.Load(in, row * in.width, first, step);
    const float r = in.inverse_rms[row];
    const float dot = GroupSum<Barrier::kOfGroup>(own.Dot(gain, in.width, first, step),
                                                  scratch[turn][threadIdx.y]);
    const float c = dot / static_cast<float>(in.width) * r * r * r;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int i = first + k * step;
      if (i >= in.width) continue;
      if (!own.kHoldsSum && in.grad_sum != nullptr)
        own.grad_sum[k] = LoadPack<T, kLanes>(in.grad_sum, row * in.width + i);
      float back[kLanes];
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const float g = own.grad[k][lane];
        back[lane] = g * gain[i + lane] * r - own.x[k][lane] * c;
        if (in.grad_sum != nullptr) back[lane] += own.grad_sum[k][lane];
        sums[k][lane] += g * Normalised(own.x[k], lane, r, in.style);
      }
      StorePack(in.grad_x, row * in.width + i, Narrowed<T, kLanes>(back));
    }
  }
  if (parts == nullptr) return;

  for (unsigned group = 0; group < blockDim.y; ++group) {
    __syncthreads();
    if (threadIdx.y != group) continue;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const int i = first + k * step + lane;
        if (i < in.width) gain[i] = group == 0 ? sums[k][lane] : gain[i] + sums[k][lane];
      }
    }
  }
  __syncthreads();
  float* part = parts + int64_t{blockIdx.x} * in.width;
  for (int i = thread; i < in.width; i += threads) part[i] = gain[i];
}

template <typename T, int kLanes>
int LaunchWith(const RmsNormBackward& in, cudaStream_t stream) {
  const unsigned group = GroupThreads(in.width, kThreadElements);
  const dim3 block(group, kThreads / group);
  const auto blocks =
      static_cast<int>(std::min<int64_t>(Multiprocessors(), CeilDiv(in.rows, block.y)));
  const int bytes = 16 * static_cast<int>(CeilDiv(in.width, 4));
  const cudaError_t allowed = cudaFuncSetAttribute(
      RmsNormBackwardKernel<T, kLanes>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (allowed != cudaSuccess) return allowed;
  float* parts = in.grad_weight == nullptr ? nullptr : in.workspace;
  RmsNormBackwardKernel<T, kLanes>
      <<<blocks, block, bytes, stream>>>(in, in.weight_element == Element::kFp32, parts);
  const cudaError_t launched = cudaGetLastError();
  if (launched != cudaSuccess || in.grad_weight == nullptr) return launched;
  return SumColumns(parts, blocks, in.width, in.grad_weight, stream);
}

template <typename T>
int Launch(const RmsNormBackward& in, cudaStream_t stream) {
  constexpr int kWide = kWideLanes<T>;
  const bool wide = in.width % kWide == 0 && AllAligned16(in.grad, in.x, in.grad_sum, in.grad_x);
  return wide ? LaunchWith<T, kWide>(in, stream) : LaunchWith<T, 1>(in, stream);
}

}  // namespace
}  // namespace osler::cuda

int osler_rms_norm_backward(const osler::cuda::RmsNormBackward* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const RmsNormBackward& in = *arguments;
  auto* on = static_cast<cudaStream_t>(stream);
  if (in.width < 0 || in.width > kMaxNormWidth) return kUnsupported;
  if (in.weight_element != in.element && in.weight_element != Element::kFp32) return kUnsupported;
  if (in.width == 0) return cudaSuccess;
  if (in.rows == 0) {
    return in.grad_weight == nullptr
               ? cudaSuccess
               : cudaMemsetAsync(in.grad_weight, 0, sizeof(float) * in.width, on);
  }
  return ForElement(in.element, [&](auto element) { return Launch<decltype(element)>(in, on); });
}

int64_t osler_rms_norm_workspace(int32_t width) {
  return int64_t{osler::cuda::Multiprocessors()} * width;
}
