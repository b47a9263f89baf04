#include <algorithm>

#include "kernels/cuda/rows/norm_rope.cuh"

namespace osler::cuda {
namespace {

constexpr int kBlocksAMultiprocessor = 2;

// A lane's share of the weight's gradient.
template <typename T, int kLanes>
struct WeightShare {
  float first[kHeadPairs<T, kLanes>][kLanes] = {}, second[kHeadPairs<T, kLanes>][kLanes] = {};
};

// The gradient of the value between the norm and the rotation.
struct Pair {
  float first, second;
};
template <typename T, int kLanes>
__device__ Pair TurnedBack(const HeadPacks<T, kLanes>& grad, int k, int lane,
                           const Turns<T, kLanes>& turns) {
  const float first = grad.first[k][lane], second = grad.second[k][lane];
  const float cos = turns.cosines[k][lane], sin = turns.sines[k][lane];
  return {first * cos + second * sin, second * cos - first * sin};
}

// Σ d · gain · x of what a lane holds.
template <typename T, int kLanes>
__device__ float Dot(const HeadPacks<T, kLanes>& grad, const HeadPacks<T, kLanes>& x, int k,
                     const Turns<T, kLanes>& turns, const float* gain, int half) {
  float dot = 0;
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    const Pair d = TurnedBack(grad, k, lane, turns);
    dot +=
        d.first * gain[lane] * x.first[k][lane] + d.second * gain[half + lane] * x.second[k][lane];
  }
  return dot;
}

template <typename T, int kLanes>
struct HeadBackward {
  const HeadPacks<T, kLanes>& grad;
  const HeadPacks<T, kLanes>& x;
  float r, c;
  NormStyle style;

  __device__ void Store(int k, const Turns<T, kLanes>& turns, const float* gain, int half,
                        void* grad_x, int64_t at, WeightShare<T, kLanes>& share) const {
    float first[kLanes], second[kLanes];
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const Pair d = TurnedBack(grad, k, lane, turns);
      const float a = x.first[k][lane], b = x.second[k][lane];
      first[lane] = d.first * gain[lane] * r - a * c;
      second[lane] = d.second * gain[half + lane] * r - b * c;
      share.first[k][lane] += d.first * (style == NormStyle::kGemma ? a * r : Rounded<T>(a * r));
      share.second[k][lane] += d.second * (style == NormStyle::kGemma ? b * r : Rounded<T>(b * r));
    }
    StorePack(grad_x, at, Narrowed<T, kLanes>(first));
    StorePack(grad_x, at + half, Narrowed<T, kLanes>(second));
  }
};

// part = Σ over the block's groups of their shares, in order; `shared` is [groups, width].
template <typename T, int kLanes>
__device__ void AddGroups(const WeightShare<T, kLanes>& share, const RopeWalk& walk, int width,
                          int group_lanes, float* shared, float* part) {
  const int half = width / 2;
  float* own = shared + walk.group * width;
#pragma unroll
  for (int k = 0; k < kHeadPairs<T, kLanes>; ++k) {
    const int i = (walk.lane + k * group_lanes) * kLanes;
    if (i >= half) continue;
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      own[i + lane] = share.first[k][lane];
      own[half + i + lane] = share.second[k][lane];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kRopeThreads) {
    float sum = shared[i];
    for (int group = 1; group < kRopeThreads / group_lanes; ++group)
      sum += shared[group * width + i];
    part[i] = sum;
  }
}

template <typename T, int kLanes>
__global__ void __launch_bounds__(kRopeThreads, kBlocksAMultiprocessor)
    NormRopeBackwardKernel(const NormRopeBackward in, const int group_lanes, float* parts) {
  constexpr int kPairs = kHeadPairs<T, kLanes>;
  constexpr int kHeads = kHeadsAtATime<kLanes>;
  __shared__ float4 shared[kMaxHeadWidth / 4];
  __shared__ float sums[kRopeThreads * 2 * kHeadPairs<T, kLanes> * kLanes];
  float* gain = reinterpret_cast<float*>(shared);
  const RopeShape& shape = in.shape;
  const int half = shape.width / 2;
  LoadGain<T>(shape, in.weight, in.style, gain);
  const float inverse_width = 1.0F / static_cast<float>(shape.width);
  WeightShare<T, kLanes> share;
  RopeWalk walk(shape, group_lanes, kHeads);
  for (; walk.Any(); walk.Next()) {
    const int head = walk.slot * kHeads;
    HeadPacks<T, kLanes> grad[kHeads], x[kHeads];
    float r[kHeads] = {}, dot[kHeads] = {};
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const bool here = walk.Present() && head + h < shape.heads;
      grad[h] = LoadHead<T, kLanes>(in.grad.data, At(in.grad, walk.token, head + h), half,
                                    walk.lane, group_lanes, here);
      x[h] = LoadHead<T, kLanes>(in.x.data, At(in.x, walk.token, head + h), half, walk.lane,
                                 group_lanes, here);
      if (here) r[h] = in.inverse_rms[walk.token * shape.heads + head + h];
    }
    const Turns<T, kLanes> turns(shape, walk, group_lanes);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int k = 0; k < kPairs; ++k) {
        const int i = (walk.lane + k * group_lanes) * kLanes;
        if (i < half) dot[h] += Dot(grad[h], x[h], k, turns, gain + i, half);
      }
      dot[h] = LaneSum(dot[h], group_lanes);
    }
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = (walk.lane + k * group_lanes) * kLanes;
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        if (!walk.Present() || i >= half || head + h >= shape.heads) continue;
        const float c = dot[h] * inverse_width * r[h] * r[h] * r[h];
        const HeadBackward<T, kLanes> one{grad[h], x[h], r[h], c, in.style};
        one.Store(k, turns, gain + i, half, in.grad_x.data, At(in.grad_x, walk.token, head + h) + i,
                  share);
      }
    }
  }
  if (parts == nullptr) return;
  AddGroups(share, walk, shape.width, group_lanes, sums, parts + int64_t{blockIdx.x} * shape.width);
}

template <typename T, int kLanes>
int LaunchWith(const NormRopeBackward& in, cudaStream_t stream) {
  const int lanes = GroupLanes(in.shape.width, kLanes);
  const int64_t items = in.shape.tokens * CeilDiv(in.shape.heads, kHeadsAtATime<kLanes>);
  const auto blocks = static_cast<int>(std::min<int64_t>(
      int64_t{Multiprocessors()} * kBlocksAMultiprocessor, CeilDiv(items, kRopeThreads / lanes)));
  float* parts = in.grad_weight == nullptr ? nullptr : in.workspace;
  NormRopeBackwardKernel<T, kLanes><<<blocks, kRopeThreads, 0, stream>>>(in, lanes, parts);
  const cudaError_t launched = cudaGetLastError();
  if (launched != cudaSuccess || in.grad_weight == nullptr) return launched;
  return SumColumns(parts, blocks, in.shape.width, in.grad_weight, stream);
}

template <typename T>
int Launch(const NormRopeBackward& in, cudaStream_t stream) {
  const bool wide = RopeIsWide<T>(in.shape) && RowsAreWide<T>(in.grad) && RowsAreWide<T>(in.x) &&
                    RowsAreWide<T>(in.grad_x);
  return wide ? LaunchWith<T, kWideLanes<T>>(in, stream) : LaunchWith<T, 1>(in, stream);
}

}  // namespace
}  // namespace osler::cuda

int osler_norm_rope_backward(const osler::cuda::NormRopeBackward* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const NormRopeBackward& in = *arguments;
  auto* on = static_cast<cudaStream_t>(stream);
  if (!IsSupported(in.shape, true)) return kUnsupported;
  if (in.shape.width == 0) return cudaSuccess;
  if (in.shape.tokens == 0 || in.shape.heads == 0) {
    return in.grad_weight == nullptr
               ? cudaSuccess
               : cudaMemsetAsync(in.grad_weight, 0, sizeof(float) * in.shape.width, on);
  }
  return ForElement(in.shape.element,
                    [&](auto element) { return Launch<decltype(element)>(in, on); });
}

int64_t osler_norm_rope_workspace(int32_t width) {
  return int64_t{osler::cuda::Multiprocessors()} * osler::cuda::kBlocksAMultiprocessor * width;
}
