#include "kernels/cuda/rows/cross_entropy.cuh"

namespace osler::cuda {
namespace {

constexpr int kThreads = 512, kAtATime = 4;
constexpr int kNarrow = 65536;  // rows up to this width take half as many threads

// A row as the elements before its first multiple of 16 bytes, packs, and the elements after.
template <typename T>
struct RowParts {
  static constexpr int kLanes = kWideLanes<T>;
  char* row;
  int head, packs, tail;

  __device__ RowParts(const CrossEntropyRows& in, int64_t index) {
    row = static_cast<char*>(in.logits) + index * in.width * T::kBytes;
    const int past = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16) / T::kBytes;
    head = past == 0 ? 0 : min(kLanes - past, in.width);
    packs = (in.width - head) / kLanes;
    tail = in.width - head - packs * kLanes;
  }
  __device__ int PackBegin(int pack) const { return head + pack * kLanes; }
  // Of thread i: its element outside the packs; −1: none.
  __device__ int Single(int i) const {
    if (i < head) return i;
    return i < head + tail ? i + packs * kLanes : -1;
  }
};

template <typename T, bool kCap>
__global__ void __launch_bounds__(kThreads) TermsKernel(const CrossEntropyRows in) {
  constexpr int kLanes = kWideLanes<T>;
  __shared__ ExpSum scratch[kMaxWarps];
  const int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const RowParts<T> parts(in, row);
  const Capped<kCap> capped(in.soft_cap);
  const int threads = static_cast<int>(blockDim.x);
  ExpSum own = {-INFINITY, 0};
  for (int pack = thread; pack < parts.packs; pack += kAtATime * threads) {
    Pack<T, kLanes> z[kAtATime];
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      const int at = pack + k * threads;
      z[k] = at < parts.packs ? LoadPack<T, kLanes>(parts.row, parts.PackBegin(at))
                              : FilledPack<T, kLanes>(T::kLowest);
    }
    Add(z, (parts.packs - pack + threads - 1) / threads, capped, own);
  }
  if (const int single = parts.Single(thread); single >= 0) {
    const Pack<T, 1> one[1] = {LoadPack<T, 1>(parts.row, single)};
    Add(one, 1, capped, own);
  }
  const ExpSum whole = BlockExpSum(own, scratch);
  if (thread != 0) return;
  const int64_t target = in.targets[row] - in.begin;
  const bool here = in.targets[row] >= 0 && target >= 0 && target < in.width;
  StoreTerms<kCap>(in, row, whole, here, here ? LoadPack<T, 1>(parts.row, target)[0] : 0.0F);
}

// Blocks (tile of a row, row).
template <typename T, bool kCap>
__global__ void __launch_bounds__(kThreads) GradientKernel(const CrossEntropyRows in) {
  constexpr int kLanes = kWideLanes<T>;
  for (int64_t row = blockIdx.y; row < in.rows; row += gridDim.y) {
    const RowParts<T> parts(in, row);
    const bool none = in.targets[row] < 0;
    const int64_t target = none ? -1 : in.targets[row] - in.begin;
    const Gradient<kCap> gradient(in, in.max[row], in.sum[row]);
    TargetLogit own;
    const int first =
        static_cast<int>(blockIdx.x) * kAtATime * kThreads + static_cast<int>(threadIdx.x);
    Pack<T, kLanes> z[kAtATime] = {};
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      const int pack = first + k * kThreads;
      if (pack < parts.packs && !none) z[k] = LoadPack<T, kLanes>(parts.row, parts.PackBegin(pack));
    }
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      const int at = parts.PackBegin(first + k * kThreads);
      if (first + k * kThreads >= parts.packs) continue;
      own.Look(z[k], target - at);
      StorePack(parts.row, at, none ? z[k] : gradient(z[k]));
    }
    const int single = blockIdx.x == 0 ? parts.Single(static_cast<int>(threadIdx.x)) : -1;
    if (single >= 0) {
      const Pack<T, 1> one = LoadPack<T, 1>(parts.row, single);
      own.Look(one, target - single);
      StorePack(parts.row, single, none ? Pack<T, 1>{} : gradient(one));
    }
    own.Store<T>(gradient, parts.row, target);
  }
}

template <typename T>
int LaunchTerms(const CrossEntropyRows& in, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(in.rows);
  const int threads = in.width > kNarrow ? kThreads : kThreads / 2;
  if (in.soft_cap == 0) {
    TermsKernel<T, false><<<blocks, threads, 0, stream>>>(in);
  } else {
    TermsKernel<T, true><<<blocks, threads, 0, stream>>>(in);
  }
  return cudaGetLastError();
}

template <typename T>
int LaunchGradient(const CrossEntropyRows& in, cudaStream_t stream) {
  const int64_t packs = std::max(in.width / kWideLanes<T>, 1);
  const dim3 blocks(static_cast<unsigned>(CeilDiv(packs, kThreads * kAtATime)),
                    static_cast<unsigned>(std::min<int64_t>(in.rows, 65535)));
  if (in.soft_cap == 0) {
    GradientKernel<T, false><<<blocks, kThreads, 0, stream>>>(in);
  } else {
    GradientKernel<T, true><<<blocks, kThreads, 0, stream>>>(in);
  }
  return cudaGetLastError();
}

}  // namespace
}  // namespace osler::cuda

int osler_cross_entropy_terms(const osler::cuda::CrossEntropyRows* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const CrossEntropyRows& in = *arguments;
  if (in.rows == 0) return cudaSuccess;
  return ForElement(in.element, [&](auto element) {
    return LaunchTerms<decltype(element)>(in, static_cast<cudaStream_t>(stream));
  });
}

int osler_cross_entropy_gradient(const osler::cuda::CrossEntropyRows* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  const CrossEntropyRows& in = *arguments;
  if (in.rows == 0 || in.width == 0) return cudaSuccess;
  return ForElement(in.element, [&](auto element) {
    return LaunchGradient<decltype(element)>(in, static_cast<cudaStream_t>(stream));
  });
}

int osler_cross_entropy(const osler::cuda::CrossEntropyRows* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  if (arguments->rows == 0) return cudaSuccess;
  const int result = CrossEntropyInClusters(*arguments, static_cast<cudaStream_t>(stream));
  if (result != kUnsupported) return result;
  const int terms = osler_cross_entropy_terms(arguments, stream);
  return terms == cudaSuccess ? osler_cross_entropy_gradient(arguments, stream) : terms;
}
