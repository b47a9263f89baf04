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
                           const Turn<T, kLanes>& turn) {
  const float first = grad.first[k][lane], second = grad.second[k][lane];
  const float cos = turn.cos[lane], sin = turn.sin[lane];
  return {first * cos + second * sin, second * cos - first * sin};
}

// Σ d · gain · x of what a lane holds.
template <typename T, int kLanes>
__device__ float Dot(const HeadPacks<T, kLanes>& grad, const HeadPacks<T, kLanes>& x, int k,
                     const Turn<T, kLanes>& turn, const float* gain, int half) {
  float dot = 0;
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    const Pair d = TurnedBack(grad, k, lane, turn);
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

  __device__ void Store(int k, const Turn<T, kLanes>& turn, const float* gain, int half,
                        void* grad_x, int64_t at, WeightShare<T, kLanes>& share) const {
    float first[kLanes], second[kLanes];
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const Pair d = TurnedBack(grad, k, lane, turn);
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

// The block's groups add their shares in turn, in `sums`, [width].
template <typename T, int kLanes>
__device__ void AddShares(const WeightShare<T, kLanes>& share, const RopeWalk& walk, int half,
                          int group_lanes, float* sums) {
  for (int group = 0; group < kRopeThreads / group_lanes; ++group) {
    __syncthreads();
    if (walk.group != group) continue;
#pragma unroll
    for (int k = 0; k < kHeadPairs<T, kLanes>; ++k) {
      const int i = (walk.lane + k * group_lanes) * kLanes;
      if (i >= half) continue;
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        float& first = sums[i + lane];
        float& second = sums[half + i + lane];
        first = group == 0 ? share.first[k][lane] : first + share.first[k][lane];
        second = group == 0 ? share.second[k][lane] : second + share.second[k][lane];
      }
    }
  }
  __syncthreads();
}

template <typename T, int kLanes>
__global__ void __launch_bounds__(kRopeThreads, kBlocksAMultiprocessor)
    NormRopeBackwardKernel(const NormRopeBackward in, const int group_lanes, float* parts) {
  constexpr int kPairs = kHeadPairs<T, kLanes>;
  __shared__ float4 shared[kMaxHeadWidth / 4];
  float* gain = reinterpret_cast<float*>(shared);
  const RopeShape& shape = in.shape;
  const int half = shape.width / 2;
  const float offset = in.style == NormStyle::kGemma ? 1.0F : 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kRopeThreads) {
    LoadWeight<T, 1>(in.weight, shape.weight_element == Element::kFp32, i, offset,
                     *reinterpret_cast<float(*)[1]>(gain + i));
  }
  __syncthreads();
  WeightShare<T, kLanes> share;
  // Whole warps go round together: lanes of a warp sum together.
  RopeWalk walk(shape, group_lanes);
  for (int64_t leader = walk.item - walk.group % (32 / group_lanes); leader < walk.items;
       leader += walk.step, walk.item += walk.step) {
    const bool present = walk.item < walk.items;
    const int64_t token = present ? walk.token() : 0;
    const int head = present ? walk.head() : 0;
    HeadPacks<T, kLanes> grad[kHeadsAtATime], x[kHeadsAtATime];
    float r[kHeadsAtATime] = {}, dot[kHeadsAtATime] = {};
#pragma unroll
    for (int h = 0; h < kHeadsAtATime; ++h) {
      const bool here = present && head + h < shape.heads;
      grad[h] = LoadHead<T, kLanes>(in.grad.data, At(in.grad, token, head + h), half, walk.lane,
                                    group_lanes, here);
      x[h] = LoadHead<T, kLanes>(in.x.data, At(in.x, token, head + h), half, walk.lane, group_lanes,
                                 here);
      if (here) r[h] = in.inverse_rms[token * shape.heads + head + h];
    }
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = (walk.lane + k * group_lanes) * kLanes;
      if (i >= half) continue;
      const Turn<T, kLanes> turn(shape, token, i);
#pragma unroll
      for (int h = 0; h < kHeadsAtATime; ++h) {
        dot[h] += Dot(grad[h], x[h], k, turn, gain + i, half);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeadsAtATime; ++h) dot[h] = LaneSum(dot[h], group_lanes);
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int i = (walk.lane + k * group_lanes) * kLanes;
      if (!present || i >= half) continue;
      const Turn<T, kLanes> turn(shape, token, i);
#pragma unroll
      for (int h = 0; h < kHeadsAtATime; ++h) {
        if (head + h >= shape.heads) continue;
        const float c = dot[h] / static_cast<float>(shape.width) * r[h] * r[h] * r[h];
        const HeadBackward<T, kLanes> one{grad[h], x[h], r[h], c, in.style};
        one.Store(k, turn, gain + i, half, in.grad_x.data, At(in.grad_x, token, head + h) + i,
                  share);
      }
    }
  }
  if (parts == nullptr) return;
  AddShares(share, walk, half, group_lanes, gain);
  float* part = parts + int64_t{blockIdx.x} * shape.width;
  for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kRopeThreads) part[i] = gain[i];
}

template <typename T, int kLanes>
int LaunchWith(const NormRopeBackward& in, cudaStream_t stream) {
  const int lanes = GroupLanes(in.shape.width, kLanes);
  const int blocks = RopeBlocks(in.shape, lanes, kBlocksAMultiprocessor);
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
