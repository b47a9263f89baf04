#include "kernels/cuda/rows/copy_async.cuh"
#include "kernels/cuda/rows/rms_norm.cuh"

namespace osler::cuda {
namespace {

// Of a row a thread has this many elements; of the block's groups each has a row at a time.
template <int kLanes>
constexpr int kThreadElements = kLanes == 1 ? 16 : 32;
template <int kLanes>
constexpr int kMaxThreads = kMaxNormWidth / kThreadElements<kLanes>;

// A thread's parts of the next rows, on their way to shared memory: no other thread looks at them,
// so that no barrier is needed. grad, x and grad_sum of each stage; neighbouring threads have
// neighbouring packs.
template <typename T, int kLanes>
class Stages {
 public:
  static constexpr int kPacks = kThreadElements<kLanes> / kLanes;
  static constexpr int kUnroll = kLanes == 1 ? 1 : kPacks;  // of loops over packs in shared memory
  enum Tensor { kGrad, kX, kGradSum };

  __device__ Stages(void* shared, int tensors)
      : slots_(static_cast<Pack<T, kLanes>*>(shared) + threadIdx.y * blockDim.x + threadIdx.x),
        threads_(static_cast<int>(blockDim.x * blockDim.y)),
        tensors_(tensors) {}

  __device__ Pack<T, kLanes>& At(int stage, Tensor tensor, int k) const {
    return slots_[((stage * tensors_ + tensor) * kPacks + k) * threads_];
  }

  // Always ends a group of copies, so that groups can be counted.
  __device__ void Fetch(const RmsNormBackward& in, int stage, int64_t row) const {
    const int step = static_cast<int>(blockDim.x) * kLanes;
    const int first = static_cast<int>(threadIdx.x) * kLanes;
#pragma unroll(kUnroll)
    for (int k = 0; k < kPacks; ++k) {
      const int i = first + k * step;
      if (row >= in.rows || i >= in.width) continue;
      const int64_t at = row * in.width + i;
      CopyPackAsync(&At(stage, kGrad, k), in.grad, at);
      CopyPackAsync(&At(stage, kX, k), in.x, at);
      if (in.grad_sum != nullptr) CopyPackAsync(&At(stage, kGradSum, k), in.grad_sum, at);
    }
    CommitCopies();
  }

 private:
  Pack<T, kLanes>* slots_;
  int threads_, tensors_;
};

// What a thread multiplies its packs by. Where registers are short it is read each time.
template <typename T, int kLanes>
class OwnGain {
 public:
  __device__ OwnGain(const RmsNormBackward& in, bool weight_fp32)
      : weight_(in.weight),
        fp32_(weight_fp32),
        offset_(in.style == NormStyle::kGemma ? 1.0F : 0.0F) {
    const int step = static_cast<int>(blockDim.x) * kLanes;
    const int first = static_cast<int>(threadIdx.x) * kLanes;
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (first + k * step < in.width)
        LoadWeight<T>(weight_, fp32_, first + k * step, offset_, held_[k]);
    }
  }
  // Of pack k, which begins at element i of the row.
  __device__ void Get(int k, int i, float (&gain)[kLanes]) const {
    if constexpr (kHeld == 0) {
      LoadWeight<T>(weight_, fp32_, i, offset_, gain);
    } else {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) gain[lane] = held_[k][lane];
    }
  }

 private:
  static constexpr int kHeld = kLanes == 8 ? Stages<T, kLanes>::kPacks : 0;
  const void* weight_;
  bool fp32_;
  float offset_;
  float held_[kHeld == 0 ? 1 : kHeld][kLanes] = {};
};

// The block's groups add their shares of the weight's gradient in turn, in `total`, [width].
template <int kLanes, int kPacks>
__device__ void AddGroups(const float (&shares)[kPacks][kLanes], int width, float* total) {
  const int step = static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(threadIdx.x) * kLanes;
  for (unsigned group = 0; group < blockDim.y; ++group) {
    __syncthreads();
    if (threadIdx.y != group) continue;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const int i = first + k * step + lane;
        if (i < width) total[i] = group == 0 ? shares[k][lane] : total[i] + shares[k][lane];
      }
    }
  }
  __syncthreads();
}

// Each block's share of the weight's gradient goes to parts[blockIdx.x]. With d the gradient of the
// normalised value n = x·r, ∂x = r·d − c·x with c = mean(d x)·r³.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kMaxThreads<kLanes>)
    RmsNormBackwardKernel(const RmsNormBackward in, const bool weight_fp32, const int stages,
                          float* parts) {
  using Own = Stages<T, kLanes>;
  constexpr int kPacks = Own::kPacks;
  extern __shared__ float4 shared[];
  __shared__ float scratch[2][kMaxWarps];
  const Own own(shared, in.grad_sum == nullptr ? 2 : 3);
  const int64_t rows_a_turn = int64_t{gridDim.x} * blockDim.y;
  int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  for (int stage = 0; stage < stages; ++stage) own.Fetch(in, stage, row + stage * rows_a_turn);

  const int step = static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(threadIdx.x) * kLanes;
  const float inverse_width = 1.0F / static_cast<float>(in.width);
  const bool plain = in.style == NormStyle::kPlain;
  const OwnGain<T, kLanes> own_gain(in, weight_fp32);
  float shares[kPacks][kLanes] = {};
  float next_r = row < in.rows ? in.inverse_rms[row] : 0;
  int stage = 0;
  for (int turn = 0; row < in.rows; row += rows_a_turn, turn ^= 1) {
    const float r = next_r;
    if (row + rows_a_turn < in.rows) next_r = in.inverse_rms[row + rows_a_turn];
    if (stages == 2) {
      WaitForCopies<1>();
    } else {
      WaitForCopies<0>();
    }
    float dot = 0;
#pragma unroll(Own::kUnroll)
    for (int k = 0; k < kPacks; ++k) {
      if (first + k * step >= in.width) continue;
      float gain[kLanes];
      own_gain.Get(k, first + k * step, gain);
      const Pack<T, kLanes> grad = own.At(stage, Own::kGrad, k), x = own.At(stage, Own::kX, k);
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) dot += grad[lane] * gain[lane] * x[lane];
    }
    float* const place = scratch[turn] + threadIdx.y * (blockDim.x / 32);
    dot = GroupSum(dot, place);
    const float c = dot * inverse_width * r * r * r;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (first + k * step >= in.width) continue;
      float gain[kLanes];
      own_gain.Get(k, first + k * step, gain);
      const Pack<T, kLanes> grad = own.At(stage, Own::kGrad, k), x = own.At(stage, Own::kX, k);
      float back[kLanes];
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        const float g = grad[lane], scaled = g * r;
        back[lane] = scaled * gain[lane] - x[lane] * c;
        shares[k][lane] += plain ? g * Rounded<T>(x[lane] * r) : scaled * x[lane];
      }
      if (in.grad_sum != nullptr) {
        const Pack<T, kLanes> grad_sum = own.At(stage, Own::kGradSum, k);
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) back[lane] += grad_sum[lane];
      }
      StorePack(in.grad_x, row * in.width + first + k * step, Narrowed<T, kLanes>(back));
    }
    own.Fetch(in, stage, row + stages * rows_a_turn);
    if (++stage == stages) stage = 0;
  }
  if (parts == nullptr) return;
  auto* total = reinterpret_cast<float*>(shared);
  AddGroups(shares, in.width, total);
  float* part = parts + int64_t{blockIdx.x} * in.width;
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  for (int i = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); i < in.width; i += threads)
    part[i] = total[i];
}

int SharedMemory() {
  int device = 0;
  int bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess) {
    return 0;
  }
  return bytes - 1024;  // what is not dynamic, and what the device keeps of a block
}

template <typename T, int kLanes>
int LaunchWith(const RmsNormBackward& in, cudaStream_t stream) {
  const unsigned group = GroupThreads(in.width, kThreadElements<kLanes>);
  const int stage_bytes = static_cast<int>(group * sizeof(Pack<T, kLanes>)) *
                          Stages<T, kLanes>::kPacks * (in.grad_sum == nullptr ? 2 : 3);
  // Two stages where most groups keep their place with them.
  const int most = SharedMemory();
  const int groups_by_threads = std::min(kMaxThreads<kLanes> / static_cast<int>(group), 15);
  const int groups_by_two = std::min(groups_by_threads, most / (2 * stage_bytes));
  const int stages = 4 * groups_by_two >= 3 * groups_by_threads ? 2 : 1;
  const int groups = stages == 2 ? groups_by_two : std::min(groups_by_threads, most / stage_bytes);
  if (groups == 0) return kUnsupported;
  const int bytes = groups * stages * stage_bytes;
  const auto blocks =
      static_cast<int>(std::min<int64_t>(Multiprocessors(), CeilDiv(in.rows, groups)));
  const auto kernel = RmsNormBackwardKernel<T, kLanes>;
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (allowed != cudaSuccess) return allowed;
  float* parts = in.grad_weight == nullptr ? nullptr : in.workspace;
  kernel<<<blocks, dim3(group, groups), bytes, stream>>>(in, in.weight_element == Element::kFp32,
                                                         stages, parts);
  const cudaError_t launched = cudaGetLastError();
  if (launched != cudaSuccess || in.grad_weight == nullptr) return launched;
  return SumColumns(parts, blocks, in.width, in.grad_weight, stream);
}

template <typename T>
int Launch(const RmsNormBackward& in, cudaStream_t stream) {
  constexpr int kWide = kWideLanes<T>;
  const bool wide =
      in.width % kWide == 0 && AllAligned16(in.grad, in.x, in.weight, in.grad_sum, in.grad_x);
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
