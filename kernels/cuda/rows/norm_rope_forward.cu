#include <algorithm>

#include "kernels/cuda/rows/norm_rope.cuh"

namespace osler::cuda {
namespace {

constexpr int kTurns = 2;  // of a block over its items: what is read of the weight serves them all

template <typename T, int kLanes>
__device__ float InverseRms(const HeadPacks<T, kLanes>& x, float inverse_width, float eps,
                            int group_lanes) {
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kHeadPairs<T, kLanes>; ++k) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      squares += x.first[k][lane] * x.first[k][lane] + x.second[k][lane] * x.second[k][lane];
    }
  }
  return rsqrtf(LaneSum(squares, group_lanes) * inverse_width + eps);
}

template <typename T, int kLanes>
__device__ Pack<T, kLanes> Normalised(const Pack<T, kLanes>& x, const float* gain, float r,
                                      NormStyle style) {
  float v[kLanes];
  if (style == NormStyle::kPlain) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) v[lane] = x[lane] * r;
    const Pack<T, kLanes> rounded = Narrowed<T, kLanes>(v);
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) v[lane] = rounded[lane] * gain[lane];
  } else {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) v[lane] = x[lane] * r * gain[lane];
  }
  return Narrowed<T, kLanes>(v);
}

template <typename T, int kLanes>
__global__ void __launch_bounds__(kRopeThreads)
    NormRopeForwardKernel(const NormRopeForward in, const int group_lanes) {
  constexpr int kHeads = kHeadsAtATime<kLanes>;
  __shared__ float4 shared[kMaxHeadWidth / 4];
  float* gain = reinterpret_cast<float*>(shared);
  const RopeShape& shape = in.shape;
  const int half = shape.width / 2;
  const bool norm = in.weight != nullptr;
  if (norm) LoadGain<T>(shape, in.weight, in.style, gain);
  const float inverse_width = 1.0F / static_cast<float>(shape.width);
  for (RopeWalk walk(shape, group_lanes, kHeads); walk.Any(); walk.Next()) {
    const int head = walk.slot * kHeads;
    HeadPacks<T, kLanes> x[kHeads];
    float r[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      x[h] = LoadHead<T, kLanes>(in.x.data, At(in.x, walk.token, head + h), half, walk.lane,
                                 group_lanes, walk.Present() && head + h < shape.heads);
    }
    const Turns<T, kLanes> turns(shape, walk, group_lanes);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (!norm) continue;
      r[h] = InverseRms(x[h], inverse_width, in.eps, group_lanes);
      if (walk.lane == 0 && walk.Present() && head + h < shape.heads)
        in.inverse_rms[walk.token * shape.heads + head + h] = r[h];
    }
#pragma unroll
    for (int k = 0; k < kHeadPairs<T, kLanes>; ++k) {
      const int i = (walk.lane + k * group_lanes) * kLanes;
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        if (!walk.Present() || i >= half || head + h >= shape.heads) continue;
        Pack<T, kLanes> first = x[h].first[k], second = x[h].second[k];
        if (norm) {
          first = Normalised(first, gain + i, r[h], in.style);
          second = Normalised(second, gain + half + i, r[h], in.style);
        }
        const Pack<T, kLanes>&cos = turns.cosines[k], &sin = turns.sines[k];
        const int64_t at = At(in.y, walk.token, head + h) + i;
        StorePack(in.y.data, at, Difference(Product(first, cos), Product(second, sin)));
        StorePack(in.y.data, at + half, Sum(Product(second, cos), Product(first, sin)));
      }
    }
  }
}

template <typename T, int kLanes>
int LaunchWith(const NormRopeForward& in, cudaStream_t stream) {
  const int lanes = GroupLanes(in.shape.width, kLanes);
  const int64_t items = in.shape.tokens * CeilDiv(in.shape.heads, kHeadsAtATime<kLanes>);
  const auto blocks = static_cast<unsigned>(CeilDiv(items, int64_t{kRopeThreads} / lanes * kTurns));
  NormRopeForwardKernel<T, kLanes><<<blocks, kRopeThreads, 0, stream>>>(in, lanes);
  return cudaGetLastError();
}

template <typename T>
int Launch(const NormRopeForward& in, cudaStream_t stream) {
  const bool wide = RopeIsWide<T>(in.shape) && RowsAreWide<T>(in.x) && RowsAreWide<T>(in.y);
  return wide ? LaunchWith<T, kWideLanes<T>>(in, stream) : LaunchWith<T, 1>(in, stream);
}

}  // namespace
}  // namespace osler::cuda

int osler_norm_rope_forward(const osler::cuda::NormRopeForward* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const NormRopeForward& in = *arguments;
  if (!IsSupported(in.shape, in.weight != nullptr)) return kUnsupported;
  if (in.shape.tokens == 0 || in.shape.heads == 0 || in.shape.width == 0) return cudaSuccess;
  return ForElement(in.shape.element, [&](auto element) {
    return Launch<decltype(element)>(in, static_cast<cudaStream_t>(stream));
  });
}
