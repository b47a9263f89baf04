#include "kernels/cuda/embedding.h"

#include <algorithm>

#include "kernels/cuda/rows/launch.h"

namespace osler::cuda {
namespace {

// Sorted rows are summed in windows. A run of one id inside a window goes to the weight's gradient
// at once; the parts of one that crosses windows go to the workspace, [windows, 2, width]: slot 0
// what continues a run of the window before, slot 1 what the next window continues. A window that a
// run fills whole has slot 0 alone. The window where the run begins then adds its parts up.
constexpr int kWindow = 32, kThreads = 32, kAtATime = 8;
// A run's parts are added up by so many slices of a block, of one warp each.
constexpr int kSlices = 8, kPartsAtATime = 4;

// What becomes of the sum after a row of a window: the run goes on, or is of no row of the weight,
// or the sum is the run's, or the part of it in slot 0 or 1.
enum class End : int32_t { kNone, kDropped, kWeight, kFirstPart, kLastPart };

// What a window's threads know of its rows.
struct Window {
  int64_t ids[kWindow], order[kWindow];
  End ends[kWindow];

  __device__ void Load(const EmbeddingBackward& in, int64_t begin, int length) {
    const int i = static_cast<int>(threadIdx.x);
    if (i < length) {
      ids[i] = in.ids[begin + i];
      order[i] = in.order[begin + i];
      const bool goes_on = begin + i + 1 < in.tokens && in.ids[begin + i + 1] == ids[i];
      // As ids ascend, all rows up to this one are then of that run.
      const bool came_before = begin > 0 && in.ids[begin - 1] == ids[i];
      const bool has_row = ids[i] >= in.begin && ids[i] - in.begin < in.rows;
      ends[i] = goes_on && i + 1 < length ? End::kNone
                : came_before             ? End::kFirstPart
                : goes_on                 ? End::kLastPart
                : has_row                 ? End::kWeight
                                          : End::kDropped;
    }
    __syncthreads();
  }
};

// A thread's columns.
template <typename T, typename W, int kLanes>
struct Column {
  const EmbeddingBackward& in;
  int at;
  float sum[kLanes];

  __device__ explicit Column(const EmbeddingBackward& arguments)
      : in(arguments), at(static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kLanes) {
    Clear();
  }
  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) sum[i] = 0;
  }
  template <typename E>
  __device__ void Add(const Pack<E, kLanes>& values) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) sum[i] += values[i];
  }
  __device__ float* Part(int64_t window, int slot) const {
    return in.workspace + (2 * window + slot) * in.width + at;
  }
  __device__ Pack<Fp32, kLanes> LoadPart(int64_t window, int slot) const {
    return LoadPack<Fp32, kLanes>(Part(window, slot), 0);
  }
  __device__ int64_t InWeight(int64_t id) const { return (id - in.begin) * in.width + at; }
  __device__ void AddTo(const Pack<W, kLanes>& old, int64_t id) const {
    float v[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = old[i] + sum[i] * in.scale;
    StorePack(in.grad_weight, InWeight(id), Narrowed<W, kLanes>(v));
  }
};

template <typename T, typename W, int kLanes>
__global__ void __launch_bounds__(kThreads) WindowKernel(const EmbeddingBackward in) {
  __shared__ Window window;
  const int64_t begin = int64_t{blockIdx.x} * kWindow;
  const auto length = static_cast<int>(min(int64_t{kWindow}, in.tokens - begin));
  window.Load(in, begin, length);
  Column<T, W, kLanes> column(in);
  if (column.at >= in.width) return;
  for (int from = 0; from < length; from += kAtATime) {
    Pack<T, kLanes> grad[kAtATime];
    Pack<W, kLanes> old[kAtATime];
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      const int i = from + k;
      if (i >= length) continue;
      grad[k] = LoadPack<T, kLanes>(in.grad, window.order[i] * in.width + column.at);
      if (window.ends[i] == End::kWeight)
        old[k] = LoadPack<W, kLanes>(in.grad_weight, column.InWeight(window.ids[i]));
    }
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      const int i = from + k;
      if (i >= length) continue;
      column.Add(grad[k]);
      const End end = window.ends[i];
      if (end == End::kNone) continue;
      if (end == End::kWeight) {
        column.AddTo(old[k], window.ids[i]);
      } else if (end != End::kDropped) {
        StorePack(column.Part(blockIdx.x, end == End::kFirstPart ? 0 : 1), 0,
                  Narrowed<Fp32, kLanes>(column.sum));
      }
      column.Clear();
    }
  }
}

// For each window in which a run begins that goes on in the next: adds up that run.
template <typename T, typename W, int kLanes>
__global__ void __launch_bounds__(32 * kSlices) CrossingRunsKernel(const EmbeddingBackward in) {
  __shared__ Pack<Fp32, kLanes> sums[kSlices][32];
  const int64_t window = blockIdx.x, next = (window + 1) * kWindow;
  const int64_t id = in.ids[next - 1];
  if (in.ids[next] != id || id < in.begin || id - in.begin >= in.rows) return;
  if (window > 0 && in.ids[window * kWindow - 1] == id) return;  // it began before
  Column<T, W, kLanes> column(in);
  const bool present = column.at < in.width;
  const auto slice = static_cast<int>(threadIdx.y);
  if (slice == 0 && present) column.Add(column.LoadPart(window, 1));
  bool goes_on = present;
  for (int64_t from = window + 1 + slice; goes_on; from += kPartsAtATime * kSlices) {
    Pack<Fp32, kLanes> parts[kPartsAtATime] = {};
    int64_t ids[kPartsAtATime];
#pragma unroll
    for (int k = 0; k < kPartsAtATime; ++k) {
      const int64_t at = (from + k * kSlices) * kWindow;
      ids[k] = at < in.tokens ? in.ids[at] : id + 1;
    }
#pragma unroll
    for (int k = 0; k < kPartsAtATime; ++k) {
      if (ids[k] == id) parts[k] = column.LoadPart(from + k * kSlices, 0);
    }
#pragma unroll
    for (int k = 0; k < kPartsAtATime; ++k) column.Add(parts[k]);
    goes_on = ids[kPartsAtATime - 1] == id;
  }
  sums[slice][threadIdx.x] = Narrowed<Fp32, kLanes>(column.sum);
  __syncthreads();
  if (slice != 0 || !present) return;
  for (int other = 1; other < kSlices; ++other) column.Add(sums[other][threadIdx.x]);
  column.AddTo(LoadPack<W, kLanes>(in.grad_weight, column.InWeight(id)), id);
}

template <typename T, typename W, int kLanes>
int LaunchWith(const EmbeddingBackward& in, cudaStream_t stream) {
  const int64_t windows = CeilDiv(in.tokens, kWindow);
  const auto columns = static_cast<unsigned>(CeilDiv(in.width, kThreads * kLanes));
  WindowKernel<T, W, kLanes>
      <<<dim3(static_cast<unsigned>(windows), columns), kThreads, 0, stream>>>(in);
  const cudaError_t launched = cudaGetLastError();
  if (launched != cudaSuccess || windows == 1) return launched;
  const dim3 blocks(static_cast<unsigned>(windows - 1),
                    static_cast<unsigned>(CeilDiv(in.width, 32 * kLanes)));
  CrossingRunsKernel<T, W, kLanes><<<blocks, dim3(32, kSlices), 0, stream>>>(in);
  return cudaGetLastError();
}

template <typename T, typename W>
int Launch(const EmbeddingBackward& in, cudaStream_t stream) {
  constexpr int kWide = 8;
  const bool wide = in.width % kWide == 0 && AllAligned16(in.grad, in.grad_weight, in.workspace);
  return wide ? LaunchWith<T, W, kWide>(in, stream) : LaunchWith<T, W, 1>(in, stream);
}

}  // namespace
}  // namespace osler::cuda

int osler_embedding_backward(const osler::cuda::EmbeddingBackward* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const EmbeddingBackward& in = *arguments;
  auto* on = static_cast<cudaStream_t>(stream);
  if (in.tokens == 0 || in.width == 0) return cudaSuccess;
  return ForElement(in.element, [&](auto element) {
    using T = decltype(element);
    if (in.weight_element == Element::kFp32) return Launch<T, Fp32>(in, on);
    return in.weight_element == in.element ? Launch<T, T>(in, on) : kUnsupported;
  });
}

int64_t osler_embedding_workspace(int64_t tokens, int32_t width) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  return 2 * CeilDiv(tokens, kWindow) * width;
}
