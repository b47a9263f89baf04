#include "kernels/cuda/rows/copy_async.cuh"
#include "kernels/cuda/rows/rms_norm.cuh"

namespace osler::cuda {
namespace {

// Of a row a thread has this many elements; of the block's groups each has a row at a time.
template <int kLanes>
constexpr int kThreadElements = kLanes == 1 ? 16 : 32;
template <int kLanes>
constexpr int kMaxThreads = kMaxNormWidth / kThreadElements<kLanes>;

// A warp's part of a row, on its way to shared memory. Each lane reads what it has copied itself,
// so that no barrier is needed; a copy's lanes write neighbouring packs, else it is many requests.
template <typename T, int kLanes>
struct WarpStage {
  static constexpr int kPacks = kThreadElements<kLanes> / kLanes;
  static constexpr int kUnroll = kLanes == 1 ? 1 : kPacks;  // of loops over packs
  Pack<T, kLanes> grad[kPacks][32], x[kPacks][32], grad_sum[kPacks][32];

  // Always ends a group of copies, so that groups can be counted.
  __device__ void Fetch(const RmsNormBackward& in, int64_t row) {
    const unsigned lane = threadIdx.x % 32;
    const int step = static_cast<int>(blockDim.x) * kLanes;
    const int first = static_cast<int>(threadIdx.x) * kLanes;
    if (row < in.rows) {
      const int64_t begin = row * in.width + first;
#pragma unroll(kUnroll)
      for (int k = 0; k < kPacks; ++k) {
        if (first + k * step >= in.width) continue;
        const int64_t at = begin + k * step;
        CopyPackAsync(&grad[k][lane], in.grad, at);
        CopyPackAsync(&x[k][lane], in.x, at);
        if (in.grad_sum != nullptr) CopyPackAsync(&grad_sum[k][lane], in.grad_sum, at);
      }
    }
    CommitCopies();
  }
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
      if (first + k * step < in.width) Load(first + k * step, held_[k]);
    }
  }
  // Of pack k, which begins at element i of the row.
  __device__ void Get(int k, int i, float (&gain)[kLanes]) const {
    if constexpr (kHeld == 0) {
      Load(i, gain);
    } else {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) gain[lane] = held_[k][lane];
    }
  }

 private:
  static constexpr int kHeld = kLanes == 8 ? WarpStage<T, kLanes>::kPacks : 0;

  __device__ void Load(int i, float (&gain)[kLanes]) const {
    LoadWeight<T>(weight_, fp32_, i, gain);
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) gain[lane] += offset_;
  }

  const void* weight_;
  bool fp32_;
  float offset_;
  float held_[kHeld == 0 ? 1 : kHeld][kLanes] = {};
};

// part = Σ over the block's groups of their shares, in order; `shared` is [groups, width].
template <int kLanes, int kPacks>
__device__ void AddGroups(const float (&shares)[kPacks][kLanes], int width, float* shared,
                          float* part) {
  const int step = static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(threadIdx.x) * kLanes;
  float* own = shared + static_cast<int>(threadIdx.y) * width;
  __syncthreads();  // all have done with what is there
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const int i = first + k * step + lane;
      if (i < width) own[i] = shares[k][lane];
    }
  }
  __syncthreads();
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  for (int i = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); i < width; i += threads) {
    float sum = shared[i];
    for (int group = 1; group < static_cast<int>(blockDim.y); ++group)
      sum += shared[group * width + i];
    part[i] = sum;
  }
}

// Each block's share of the weight's gradient goes to parts[blockIdx.x]. With d the gradient of the
// normalised value n = x·r, ∂x = r·d − c·x with c = mean(d x)·r³.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kMaxThreads<kLanes>)
    RmsNormBackwardKernel(const RmsNormBackward in, const bool weight_fp32, const int stages,
                          float* parts) {
  using Stage = WarpStage<T, kLanes>;
  constexpr int kPacks = Stage::kPacks;
  extern __shared__ float4 shared[];  // [stages][warps] of Stage
  __shared__ float scratch[2][kMaxWarps];
  const unsigned lane = threadIdx.x % 32, warps = blockDim.x * blockDim.y / 32;
  Stage* own = reinterpret_cast<Stage*>(shared) + (threadIdx.y * blockDim.x + threadIdx.x) / 32;
  Stage* next = own + (stages - 1) * warps;
  const int64_t rows_a_turn = int64_t{gridDim.x} * blockDim.y;
  int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  own->Fetch(in, row);
  if (stages == 2) next->Fetch(in, row + rows_a_turn);

  const int step = static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(threadIdx.x) * kLanes;
  const float inverse_width = 1.0F / static_cast<float>(in.width);
  const OwnGain<T, kLanes> own_gain(in, weight_fp32);
  float shares[kPacks][kLanes] = {};
  float next_r = row < in.rows ? in.inverse_rms[row] : 0;
  for (int turn = 0; row < in.rows; row += rows_a_turn, turn ^= 1) {
    const int64_t begin = row * in.width + first;
    const float r = next_r;
    if (row + rows_a_turn < in.rows) next_r = in.inverse_rms[row + rows_a_turn];
    if (stages == 2) {
      WaitForCopies<1>();
    } else {
      WaitForCopies<0>();
    }
    float dot = 0;
#pragma unroll(Stage::kUnroll)
    for (int k = 0; k < kPacks; ++k) {
      if (first + k * step >= in.width) continue;
      float gain[kLanes];
      own_gain.Get(k, first + k * step, gain);
      const Pack<T, kLanes> grad = own->grad[k][lane], x = own->x[k][lane];
      float dots[2] = {};
#pragma unroll
      for (int i = 0; i < kLanes; ++i) dots[i % 2] += grad[i] * gain[i] * x[i];
      dot += dots[0] + dots[1];
    }
    dot = GroupSum<Barrier::kOfGroup>(dot, scratch[turn]);
    const float c = dot * inverse_width * r * r * r;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (first + k * step >= in.width) continue;
      float gain[kLanes], back[kLanes];
      own_gain.Get(k, first + k * step, gain);
      const Pack<T, kLanes> grad = own->grad[k][lane], x = own->x[k][lane];
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        const float scaled = grad[i] * r;
        back[i] = scaled * gain[i] - x[i] * c;
        if (in.style == NormStyle::kGemma) {
          shares[k][i] += scaled * x[i];
        } else {
          shares[k][i] += grad[i] * Rounded<T>(x[i] * r);
        }
      }
      if (in.grad_sum != nullptr) {
        const Pack<T, kLanes> grad_sum = own->grad_sum[k][lane];
#pragma unroll
        for (int i = 0; i < kLanes; ++i) back[i] += grad_sum[i];
      }
      StorePack(in.grad_x, begin + k * step, Narrowed<T, kLanes>(back));
    }
    own->Fetch(in, row + stages * rows_a_turn);
    Stage* const done = own;
    own = next;
    next = done;
  }
  if (parts == nullptr) return;
  AddGroups(shares, in.width, reinterpret_cast<float*>(shared),
            parts + int64_t{blockIdx.x} * in.width);
}

template <typename T, int kLanes>
int LaunchWith(const RmsNormBackward& in, cudaStream_t stream) {
  const unsigned group = GroupThreads(in.width, kThreadElements<kLanes>);
  const int group_bytes = static_cast<int>(group / 32 * sizeof(WarpStage<T, kLanes>));
  // Less what is not dynamic, and what the device keeps of a block.
  const int most = DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - 1024;
  const int by_threads = std::min(kMaxThreads<kLanes> / static_cast<int>(group), 15);
  const int by_two_stages = std::min(by_threads, most / (2 * group_bytes));
  // Two stages where most groups keep their place with them.
  const int stages = 4 * by_two_stages >= 3 * by_threads ? 2 : 1;
  const int groups = stages == 2 ? by_two_stages : std::min(by_threads, most / group_bytes);
  if (groups == 0) return kUnsupported;
  const int bytes = stages * groups * group_bytes;
  const auto blocks =
      static_cast<int>(std::min<int64_t>(Multiprocessors(), CeilDiv(in.rows, groups)));
  const auto kernel = RmsNormBackwardKernel<T, kLanes>;
  float* parts = in.grad_weight == nullptr ? nullptr : in.workspace;
  const cudaError_t launched =
      LaunchWithShared(kernel, blocks, dim3(group, groups), bytes, stream, in,
                       in.weight_element == Element::kFp32, stages, parts);
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
