#include <algorithm>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/rows/reduce.cuh"
#include "kernels/cuda/rows/tensor_list.cuh"

namespace osler::cuda {
namespace {

constexpr int kThreads = 256, kMaxEntries = 1300, kAtATime = 4;
constexpr int kBlocksAMultiprocessor = 8;
constexpr int kSumThreads = 1024;

struct Entry {
  const void* data;
  int64_t count;
  unsigned first_chunk;
  int32_t packed;  // the address is a multiple of 16 bytes
};

struct List {
  int32_t count;
  unsigned chunks;
  Element element;
  double* parts;  // one a block
  Entry entries[kMaxEntries];
};
static_assert(sizeof(List) <= 32764, "a kernel's arguments");

__device__ inline float SquaresOf(const Eight& raw, Element element) {
  float v[8], sum = 0;
  raw.Widen(element, v);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += v[i] * v[i];
  return sum;
}

__device__ inline double BlockSum(double v, double* scratch) {
  v = WarpSum(v);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); ++warp) v += scratch[warp];
  return v;
}

// Eight squares are added in fp32, all else in fp64.
__device__ inline double ChunkSquares(const List& list, unsigned chunk) {
  const Entry& entry = list.entries[EntryOfChunk(list, chunk)];
  const int64_t begin = int64_t{chunk - entry.first_chunk} * kChunk;
  const auto length = static_cast<int>(min(int64_t{kChunk}, entry.count - begin));
  const int packed = entry.packed != 0 ? length / 8 * 8 : 0;
  const int thread = static_cast<int>(threadIdx.x);
  double sum = 0;
  for (int i = 8 * thread; i < packed; i += kAtATime * 8 * kThreads) {
    Eight raw[kAtATime] = {};
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) {
      const int at = i + k * 8 * kThreads;
      if (at < packed) raw[k] = Eight::Load(entry.data, begin + at, list.element);
    }
#pragma unroll
    for (int k = 0; k < kAtATime; ++k) sum += static_cast<double>(SquaresOf(raw[k], list.element));
  }
  for (int i = packed + thread; i < length; i += kThreads) {
    const float v = LoadOne(entry.data, begin + i, list.element);
    sum += static_cast<double>(v * v);
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads) SquaresKernel(const __grid_constant__ List list) {
  __shared__ double scratch[kMaxWarps];
  double sum = 0;
  for (unsigned chunk = blockIdx.x; chunk < list.chunks; chunk += gridDim.x)
    sum += ChunkSquares(list, chunk);
  sum = BlockSum(sum, scratch);
  if (threadIdx.x == 0) list.parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumThreads)
    SumPartsKernel(const double* parts, int64_t count, double* sum) {
  __shared__ double scratch[kMaxWarps];
  double v = 0;
  for (int64_t i = threadIdx.x; i < count; i += kSumThreads) v += parts[i];
  v = BlockSum(v, scratch);
  if (threadIdx.x == 0) *sum = v;
}

__global__ void ClipFactorKernel(const ClipFactor in) {
  const double norm = in.multiplier * sqrt(*in.sum);
  const double factor = in.clip > 0 ? in.clip / (norm + 1e-6) : 1;
  if (in.norm != nullptr) *in.norm = static_cast<float>(norm);
  // A factor that is no number must stay none.
  if (in.factor != nullptr)
    *in.factor = static_cast<float>(in.multiplier * (factor > 1 ? 1 : factor));
}

unsigned Blocks(unsigned chunks) {
  return std::min(chunks, static_cast<unsigned>(Multiprocessors() * kBlocksAMultiprocessor));
}

}  // namespace
}  // namespace osler::cuda

int osler_squares_sum(const osler::cuda::SquaresSum* arguments, void* stream) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  auto* on = static_cast<cudaStream_t>(stream);
  List list = {};
  list.element = arguments->element;
  int64_t parts = 0;
  for (int64_t i = 0; i < arguments->count; ++i) {
    const NormTensor& tensor = arguments->tensors[i];
    if (tensor.count > 0) {
      list.entries[list.count++] = {tensor.data, tensor.count, list.chunks, Aligned16(tensor.data)};
      list.chunks += Chunks(tensor.count);
    }
    if (list.count < kMaxEntries && i + 1 < arguments->count) continue;
    if (list.chunks == 0) break;
    list.parts = arguments->workspace + parts;
    const unsigned blocks = Blocks(list.chunks);
    SquaresKernel<<<blocks, kThreads, 0, on>>>(list);
    const cudaError_t launched = cudaGetLastError();
    if (launched != cudaSuccess) return launched;
    parts += blocks;
    list.count = 0;
    list.chunks = 0;
  }
  SumPartsKernel<<<1, kSumThreads, 0, on>>>(arguments->workspace, parts, arguments->sum);
  return cudaGetLastError();
}

int64_t osler_squares_sum_workspace(int64_t tensors) {
  using namespace osler::cuda;  // NOLINT(google-build-using-namespace)
  return std::max<int64_t>(CeilDiv(tensors, kMaxEntries), 1) * Multiprocessors() *
         kBlocksAMultiprocessor;
}

int osler_clip_factor(const osler::cuda::ClipFactor* arguments, void* stream) {
  osler::cuda::ClipFactorKernel<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(*arguments);
  return cudaGetLastError();
}
