#include "kernels/cuda/embedding.h"

#include <algorithm>

#include "kernels/cuda/rows/launch.h"

namespace osler::cuda {
namespace {

// Sorted rows are summed in windows. A run of one id inside a window goes to the weight's gradient
// at once; the parts of one that crosses windows go to the workspace, [windows, 2, width]: slot 0
// what continues a run of the window before, slot 1 what the next window continues. A window that a
// run fills whole has slot 0 alone. The window where the run begins then adds its parts up.
constexpr int kWindow = 32, kThreads = 128, kAtATime = 4;

template <typename T, typename W, int kLanes>
struct Column {
  const EmbeddingBackward& in;
  int at;  // of this thread's elements
  float sum[kLanes];

  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) sum[i] = 0;
  }
  __device__ void Add(const Pack<T, kLanes>& grad) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) sum[i] += grad[i];
  }
  __device__ float* Part(int64_t window, int slot) const {
    return in.workspace + (2 * window + slot) * in.width + at;
  }
  __device__ void AddPart(int64_t window, int slot) {
    const Pack<Fp32, kLanes> part = LoadPack<Fp32, kLanes>(Part(window, slot), 0);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) sum[i] += part[i];
  }
  __device__ void StorePart(int64_t window, int slot) const {
    StorePack(Part(window, slot), 0, Narrowed<Fp32, kLanes>(sum));
  }
  __device__ void Finish(int64_t id) const {
    const int64_t row = id - in.begin;
    if (row < 0 || row >= in.rows) return;
    const Pack<W, kLanes> old = LoadPack<W, kLanes>(in.grad_weight, row * in.width + at);
    float v[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = old[i] + sum[i] * in.scale;
    StorePack(in.grad_weight, row * in.width + at, Narrowed<W, kLanes>(v));
  }
};

template <typename T, typename W, int kLanes>
__global__ void __launch_bounds__(kThreads) WindowKernel(const EmbeddingBackward in) {
  __shared__ int64_t ids[kWindow + 2];  // of the window, with its neighbours
  __shared__ int64_t order[kWindow];
  const int64_t window = blockIdx.x, begin = window * kWindow;
  const auto length = static_cast<int>(min(int64_t{kWindow}, in.tokens - begin));
  for (int i = static_cast<int>(threadIdx.x); i < length + 2; i += kThreads) {
    const int64_t at = begin + i - 1;
    ids[i] = at < 0 || at >= in.tokens ? -1 : in.ids[at];
    if (i >= 1 && i <= length) order[i - 1] = in.order[at];
  }
  __syncthreads();
  const bool continues = begin > 0 && ids[0] == ids[1];
  const bool continued = begin + length < in.tokens && ids[length + 1] == ids[length];

  Column<T, W, kLanes> column{in, static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kLanes};
  if (column.at >= in.width) return;
  column.Clear();
  bool first_run = true;
  for (int from = 0; from < length; from += kAtATime) {
    Pack<T, kLanes> grad[kAtATime];
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      if (from + k >= length) continue;
      grad[k] = LoadPack<T, kLanes>(in.grad, order[from + k] * in.width + column.at);
    }
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      const int i = from + k;
      if (i >= length) continue;
      column.Add(grad[k]);
      const bool last = i + 1 == length;
      if (!last && ids[i + 1] == ids[i + 2]) continue;  // the run goes on
      if (first_run && continues) {
        column.StorePart(window, 0);
      } else if (last && continued) {
        column.StorePart(window, 1);
      } else {
        column.Finish(ids[i + 1]);
      }
      first_run = false;
      column.Clear();
    }
  }
}

// For each window in whose last run another begins to cross: adds up that run.
template <typename T, typename W, int kLanes>
__global__ void __launch_bounds__(kThreads) CrossingRunsKernel(const EmbeddingBackward in) {
  const int64_t window = blockIdx.x, next = (window + 1) * kWindow;
  const int64_t id = in.ids[next - 1];
  if (in.ids[next] != id) return;
  // A run that fills the window began before it, unless it begins at its first row.
  const int64_t begin = window * kWindow;
  if (begin > 0 && in.ids[begin - 1] == id) return;
  Column<T, W, kLanes> column{in, static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kLanes};
  if (column.at >= in.width) return;
  column.Clear();
  column.AddPart(window, 1);
  for (int64_t w = window + 1; w * kWindow < in.tokens && in.ids[w * kWindow] == id; ++w)
    column.AddPart(w, 0);
  column.Finish(id);
}

template <typename T, typename W, int kLanes>
int LaunchWith(const EmbeddingBackward& in, cudaStream_t stream) {
  const int64_t windows = CeilDiv(in.tokens, kWindow);
  const auto columns = static_cast<unsigned>(CeilDiv(in.width, kThreads * kLanes));
  WindowKernel<T, W, kLanes>
      <<<dim3(static_cast<unsigned>(windows), columns), kThreads, 0, stream>>>(in);
  const cudaError_t launched = cudaGetLastError();
  if (launched != cudaSuccess || windows == 1) return launched;
  CrossingRunsKernel<T, W, kLanes>
      <<<dim3(static_cast<unsigned>(windows - 1), columns), kThreads, 0, stream>>>(in);
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
