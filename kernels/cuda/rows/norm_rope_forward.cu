#include <algorithm>

#include "kernels/cuda/rows/norm_rope.cuh"

namespace osler::cuda {
namespace {

constexpr int kBlocksAMultiprocessor = 8;

template <typename T, int kLanes>
__device__ float InverseRms(const HeadPacks<T, kLanes>& x, const NormRopeForward& in,
                            int group_lanes) {
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kHeadPairs<T, kLanes>; ++k) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      squares += x.first[k][lane] * x.first[k][lane] + x.second[k][lane] * x.second[k][lane];
    }
  }
  squares = LaneSum(squares, group_lanes);
  return 1 / sqrtf(squares / static_cast<float>(in.shape.width) + in.eps);
}

// The values that are to be turned: of what a lane holds, one pack.
template <typename T, int kLanes>
__device__ void Normalise(const Pack<T, kLanes>& x, const float* gain, float r, NormStyle style,
                          float (&v)[kLanes]) {
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    const float normed = x[lane] * r;
    v[lane] = Rounded<T>((style == NormStyle::kGemma ? normed : Rounded<T>(normed)) * gain[lane]);
  }
}

template <typename T, int kLanes>
__device__ void StoreTurned(const float (&first)[kLanes], const float (&second)[kLanes],
                            const Turn<T, kLanes>& turn, void* y, int64_t at, int half) {
  float low[kLanes], high[kLanes];
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    const float cos = turn.cos[lane], sin = turn.sin[lane];
    low[lane] = Rounded<T>(first[lane] * cos) - Rounded<T>(second[lane] * sin);
    high[lane] = Rounded<T>(second[lane] * cos) + Rounded<T>(first[lane] * sin);
  }
  StorePack(y, at, Narrowed<T, kLanes>(low));
  StorePack(y, at + half, Narrowed<T, kLanes>(high));
}

template <typename T, int kLanes>
__global__ void __launch_bounds__(kRopeThreads)
    NormRopeForwardKernel(const NormRopeForward in, const int group_lanes) {
  __shared__ float4 shared[kMaxHeadWidth / 4];
  float* gain = reinterpret_cast<float*>(shared);
  const RopeShape& shape = in.shape;
  const int half = shape.width / 2;
  const bool norm = in.weight != nullptr;
  if (norm) {
    const float offset = in.style == NormStyle::kGemma ? 1.0F : 0.0F;
    for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kRopeThreads) {
      LoadWeight<T, 1>(in.weight, shape.weight_element == Element::kFp32, i, offset,
                       *reinterpret_cast<float(*)[1]>(gain + i));
    }
    __syncthreads();
  }
  // Whole warps go round together: lanes of a warp sum together.
  RopeWalk walk(shape, group_lanes);
  const int64_t warp_first = walk.item - walk.group % (32 / group_lanes);
  for (int64_t leader = warp_first; leader < walk.items;
       leader += walk.step, walk.item += walk.step) {
    const bool present = walk.item < walk.items;
    const int64_t token = walk.token();
    const int head = walk.head();
    HeadPacks<T, kLanes> x[kHeadsAtATime];
    float r[kHeadsAtATime];
#pragma unroll
    for (int h = 0; h < kHeadsAtATime; ++h) {
      x[h] = LoadHead<T, kLanes>(in.x.data, At(in.x, token, head + h), half, walk.lane, group_lanes,
                                 present && head + h < shape.heads);
    }
#pragma unroll
    for (int h = 0; h < kHeadsAtATime; ++h) {
      if (!norm) continue;
      r[h] = InverseRms(x[h], in, group_lanes);
      if (walk.lane == 0 && present && head + h < shape.heads)
        in.inverse_rms[token * shape.heads + head + h] = r[h];
    }
#pragma unroll
    for (int k = 0; k < kHeadPairs<T, kLanes>; ++k) {
      const int i = (walk.lane + k * group_lanes) * kLanes;
      if (!present || i >= half) continue;
      const Turn<T, kLanes> turn(shape, token, i);
#pragma unroll
      for (int h = 0; h < kHeadsAtATime; ++h) {
        if (head + h >= shape.heads) continue;
        float first[kLanes], second[kLanes];
        if (norm) {
          Normalise(x[h].first[k], gain + i, r[h], in.style, first);
          Normalise(x[h].second[k], gain + half + i, r[h], in.style, second);
        } else {
#pragma unroll
          for (int lane = 0; lane < kLanes; ++lane) {
            first[lane] = x[h].first[k][lane];
            second[lane] = x[h].second[k][lane];
          }
        }
        StoreTurned<T, kLanes>(first, second, turn, in.y.data, At(in.y, token, head + h) + i, half);
      }
    }
  }
}

template <typename T, int kLanes>
int LaunchWith(const NormRopeForward& in, cudaStream_t stream) {
  const int lanes = GroupLanes(in.shape.width, kLanes);
  const int blocks = RopeBlocks(in.shape, lanes, kBlocksAMultiprocessor);
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
