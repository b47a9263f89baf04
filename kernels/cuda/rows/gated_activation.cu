#include "kernels/cuda/gated_activation.h"

#include <algorithm>

#include "kernels/cuda/rows/launch.h"

namespace osler::cuda {
namespace {

constexpr int kThreads = 256;

// Both activations are x·σ(u(x)): ½(1 + tanh v) = σ(2v).
constexpr float kScale = 1.5957691216057308F;  // 2 √(2/π)
constexpr float kCubic = 0.044715F;

__device__ inline float Share(float x, GateKind kind) {
  const float u = kind == GateKind::kSilu ? x : x * (x * x * (kScale * kCubic) + kScale);
  return __fdividef(1.0F, 1.0F + __expf(-u));
}

// d(x·σ(u))/dx from σ(u).
__device__ inline float Slope(float x, float share, GateKind kind) {
  const float fall = share * (1 - share);
  const float du = kind == GateKind::kSilu ? 1.0F : x * x * (3 * kScale * kCubic) + kScale;
  return share + x * fall * du;
}

// Of all rows' packs, the i-th: where it stands in each matrix.
struct Place {
  int64_t row;
  int column;

  __device__ Place(uint32_t i, uint32_t packs_a_row, int lanes)
      : row(i / packs_a_row), column(static_cast<int>(i % packs_a_row) * lanes) {}
  __device__ int64_t In(const Matrix& m) const { return row * m.stride + column; }
};

template <typename T, int kLanes, int kAtATime>
__global__ void __launch_bounds__(kThreads)
    GatedForwardKernel(const GatedForward in, const uint32_t packs, const uint32_t packs_a_row) {
  const uint32_t first = blockIdx.x * (kThreads * kAtATime) + threadIdx.x;
  Pack<T, kLanes> gate[kAtATime], up[kAtATime];
#pragma unroll
  for (int k = 0; k < kAtATime; ++k) {
    const uint32_t i = first + k * kThreads;
    if (i >= packs) continue;
    const Place place(i, packs_a_row, kLanes);
    gate[k] = LoadPack<T, kLanes>(in.gate.data, place.In(in.gate));
    up[k] = LoadPack<T, kLanes>(in.up.data, place.In(in.up));
  }
#pragma unroll
  for (int k = 0; k < kAtATime; ++k) {
    const uint32_t i = first + k * kThreads;
    if (i >= packs) continue;
    float y[kLanes];
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = gate[k][lane];
      y[lane] = Rounded<T>(x * Share(x, in.kind)) * up[k][lane];
    }
    StorePack(in.y.data, Place(i, packs_a_row, kLanes).In(in.y), Narrowed<T, kLanes>(y));
  }
}

template <typename T, int kLanes, int kAtATime>
__global__ void __launch_bounds__(kThreads)
    GatedBackwardKernel(const GatedBackward in, const uint32_t packs, const uint32_t packs_a_row) {
  const uint32_t first = blockIdx.x * (kThreads * kAtATime) + threadIdx.x;
  Pack<T, kLanes> grad[kAtATime], gate[kAtATime], up[kAtATime];
#pragma unroll
  for (int k = 0; k < kAtATime; ++k) {
    const uint32_t i = first + k * kThreads;
    if (i >= packs) continue;
    const Place place(i, packs_a_row, kLanes);
    grad[k] = LoadPack<T, kLanes>(in.grad.data, place.In(in.grad));
    gate[k] = LoadPack<T, kLanes>(in.gate.data, place.In(in.gate));
    up[k] = LoadPack<T, kLanes>(in.up.data, place.In(in.up));
  }
#pragma unroll
  for (int k = 0; k < kAtATime; ++k) {
    const uint32_t i = first + k * kThreads;
    if (i >= packs) continue;
    float grad_gate[kLanes], grad_up[kLanes];
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = gate[k][lane], g = grad[k][lane];
      const float share = Share(x, in.kind);
      grad_up[lane] = Rounded<T>(x * share) * g;
      grad_gate[lane] = g * up[k][lane] * Slope(x, share, in.kind);
    }
    const Place place(i, packs_a_row, kLanes);
    StorePack(in.grad_gate.data, place.In(in.grad_gate), Narrowed<T, kLanes>(grad_gate));
    StorePack(in.grad_up.data, place.In(in.grad_up), Narrowed<T, kLanes>(grad_up));
  }
}

// At most 2³¹ packs a launch.
template <typename Arguments>
int64_t RowsALaunch(const Arguments& in) {
  return std::max<int64_t>(1, (int64_t{1} << 31) / in.width);
}

void Skip(Matrix& m, int64_t rows, int bytes) {
  m.data = static_cast<char*>(m.data) + rows * m.stride * bytes;
}

template <typename T, typename... M>
bool AreWide(int width, const M&... m) {
  constexpr int kWide = kWideLanes<T>;
  return width % kWide == 0 && ((Aligned16(m.data) && m.stride % kWide == 0) && ...);
}

unsigned Blocks(int64_t packs, int at_a_time) {
  return static_cast<unsigned>(CeilDiv(packs, int64_t{kThreads} * at_a_time));
}

template <typename In>
using Kernel = void (*)(In, uint32_t packs, uint32_t packs_a_row);

// By the kernel of kWideLanes lanes where all matrices, the `members`, can be read so, else by that
// of one.
template <typename T, int kAtATime, typename In, typename... Member>
int Launch(In in, Kernel<In> wide, Kernel<In> narrow, cudaStream_t stream, Member... members) {
  const bool fits = AreWide<T>(in.width, in.*members...);
  const auto packs_a_row = static_cast<uint32_t>(in.width / (fits ? kWideLanes<T> : 1));
  const int64_t most = RowsALaunch(in);
  for (int64_t left = in.rows; left > 0; left -= most) {
    const int64_t rows = std::min(left, most);
    const auto packs = static_cast<uint32_t>(rows * packs_a_row);
    (fits ? wide : narrow)<<<Blocks(packs, kAtATime), kThreads, 0, stream>>>(in, packs,
                                                                             packs_a_row);
    (Skip(in.*members, rows, T::kBytes), ...);
  }
  return cudaGetLastError();
}

}  // namespace
}  // namespace osler::cuda

int osler_gated_forward(const osler::cuda::GatedForward* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const GatedForward& in = *arguments;
  if (in.rows == 0 || in.width == 0) return cudaSuccess;
  return ForElement(in.element, [&](auto element) {
    using T = decltype(element);
    constexpr int kAtATime = 4;
    return Launch<T, kAtATime>(in, GatedForwardKernel<T, kWideLanes<T>, kAtATime>,
                               GatedForwardKernel<T, 1, kAtATime>,
                               static_cast<cudaStream_t>(stream), &GatedForward::gate,
                               &GatedForward::up, &GatedForward::y);
  });
}

int osler_gated_backward(const osler::cuda::GatedBackward* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const GatedBackward& in = *arguments;
  if (in.rows == 0 || in.width == 0) return cudaSuccess;
  return ForElement(in.element, [&](auto element) {
    using T = decltype(element);
    constexpr int kAtATime = 2;
    return Launch<T, kAtATime>(
        in, GatedBackwardKernel<T, kWideLanes<T>, kAtATime>, GatedBackwardKernel<T, 1, kAtATime>,
        static_cast<cudaStream_t>(stream), &GatedBackward::grad, &GatedBackward::gate,
        &GatedBackward::up, &GatedBackward::grad_gate, &GatedBackward::grad_up);
  });
}
