#include "kernels/cuda/merge_attention.h"

#include <bit>

#include "kernels/cuda/rows/launch.h"

namespace osler::cuda {
namespace {

constexpr int kThreads = 256, kAtATime = 2;

// A row is a group of neighbouring lanes' work: all of them have read its lse before one writes it.
template <int kLanes>
__global__ void __launch_bounds__(kThreads)
    MergeKernel(const MergeAttention in, const int group_lanes) {
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / group_lanes;
  const int lane = static_cast<int>(threadIdx.x) % group_lanes;
  const bool present = row < in.rows;
  const float other_lse = present ? in.part_lse[row] : -INFINITY;
  const float own_lse = present ? in.lse[row] : -INFINITY;
  __syncwarp();
  if (other_lse == -INFINITY) return;
  const float top = fmaxf(own_lse, other_lse);
  const float own = expf(own_lse - top), other = expf(other_lse - top);
  const float sum = own + other;
  const float keep = own / sum, take = other / sum;
  if (lane == 0) in.lse[row] = top + logf(sum);
  const int64_t begin = row * in.width;
  const int step = group_lanes * kLanes;
  for (int first = lane * kLanes; first < in.width; first += kAtATime * step) {
    Pack<Fp32, kLanes> out[kAtATime], part[kAtATime];
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      if (first + k * step >= in.width) continue;
      out[k] = LoadPack<Fp32, kLanes>(in.out, begin + first + k * step);
      part[k] = LoadPack<Fp32, kLanes>(in.part_out, begin + first + k * step);
    }
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      if (first + k * step >= in.width) continue;
      float v[kLanes];
#pragma unroll
      for (int i = 0; i < kLanes; ++i) v[i] = keep * out[k][i] + take * part[k][i];
      StorePack(in.out, begin + first + k * step, Narrowed<Fp32, kLanes>(v));
    }
  }
}

template <int kLanes>
int Launch(const MergeAttention& in, cudaStream_t stream) {
  const auto packs = static_cast<unsigned>(CeilDiv(in.width, kLanes * kAtATime));
  const int lanes = std::min(32, static_cast<int>(std::bit_ceil(packs)));
  const auto blocks = static_cast<unsigned>(CeilDiv(in.rows, kThreads / lanes));
  MergeKernel<kLanes><<<blocks, kThreads, 0, stream>>>(in, lanes);
  return cudaGetLastError();
}

}  // namespace
}  // namespace osler::cuda

int osler_merge_attention(const osler::cuda::MergeAttention* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const MergeAttention& in = *arguments;
  auto* on = static_cast<cudaStream_t>(stream);
  if (in.rows == 0 || in.width == 0) return cudaSuccess;
  return in.width % 4 == 0 && AllAligned16(in.out, in.part_out) ? Launch<4>(in, on)
                                                                : Launch<1>(in, on);
}
