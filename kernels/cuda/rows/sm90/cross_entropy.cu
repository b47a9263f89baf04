#include "kernels/cuda/rows/cross_entropy.cuh"

// One cluster of blocks a row, which it holds in its registers: the logits are read once.

namespace osler::cuda {
namespace {

constexpr int kClusterBlocks = 8, kPacks = 8;
constexpr int kMaxThreads = 576;  // two such blocks a multiprocessor: one reads while one writes

__device__ inline unsigned ClusterRank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// The two halves of a barrier of the cluster's threads.
__device__ inline void ClusterArrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void ClusterWait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// What block `rank` of the cluster holds at the place of `own` in its shared memory.
__device__ inline ExpSum OfBlock(const ExpSum* own, unsigned rank) {
  const auto here = static_cast<unsigned>(__cvta_generic_to_shared(own));
  unsigned there;
  ExpSum value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
               : "=f"(value.max), "=f"(value.sum)
               : "r"(there)
               : "memory");
  return value;
}

template <typename T, bool kCap>
__device__ ExpSum ThreadExpSum(Pack<T, kWideLanes<T>> (&z)[kPacks], int first, int step, int width,
                               const Capped<kCap>& capped) {
  ExpSum own = {-INFINITY, 0};
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (first + k * step < width) Add(z[k], capped, own);
  }
  return own;
}

template <typename T, bool kCap>
__global__ void __launch_bounds__(kMaxThreads, 2) __cluster_dims__(kClusterBlocks, 1, 1)
    ClusterKernel(const CrossEntropyRows in) {
  constexpr int kLanes = kWideLanes<T>;
  __shared__ ExpSum scratch[kMaxWarps];
  __shared__ ExpSum of_block;
  const unsigned rank = ClusterRank();
  const int64_t row = blockIdx.x / kClusterBlocks;
  char* logits = static_cast<char*>(in.logits) + row * in.width * T::kBytes;
  // The cluster goes through the row a sweep of packs at a time.
  const int step = kClusterBlocks * static_cast<int>(blockDim.x) * kLanes;
  const int first = static_cast<int>(rank * blockDim.x + threadIdx.x) * kLanes;
  const int64_t label = in.targets[row], target = label - in.begin;

  Pack<T, kLanes> z[kPacks] = {};
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (label >= 0 && i < in.width) z[k] = LoadPack<T, kLanes>(logits, i);
  }
  const bool here = label >= 0 && target >= 0 && target < in.width;
  const bool storing = rank == 0 && threadIdx.x == 0;
  const float target_logit = storing && here ? LoadPack<T, 1>(logits, target)[0] : 0.0F;

  if (label < 0) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (first + k * step < in.width) StorePack(logits, first + k * step, z[k]);
    }
    if (storing) StoreTerms<false>(in, row, {0, 1}, false, 0);
    return;  // the whole cluster does
  }

  const Capped<kCap> capped(in.soft_cap);
  const ExpSum own = BlockExpSum(ThreadExpSum<T, kCap>(z, first, step, in.width, capped), scratch);
  if (threadIdx.x == 0) of_block = own;
  ClusterArrive();
  ClusterWait();
  ExpSum whole = OfBlock(&of_block, 0);
#pragma unroll
  for (unsigned block = 1; block < kClusterBlocks; ++block)
    whole = Merged(whole, OfBlock(&of_block, block));
  ClusterArrive();  // no block leaves before all have read what it holds
  if (storing) StoreTerms<kCap>(in, row, whole, here, target_logit);

  const Gradient<kCap> gradient(in, whole.max, whole.sum);
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i < in.width) StorePack(logits, i, gradient(z[k], target - i));
  }
  ClusterWait();
}

template <typename T>
int Launch(const CrossEntropyRows& in, cudaStream_t stream) {
  constexpr int kLanes = kWideLanes<T>;
  const int64_t threads = 32 * CeilDiv(in.width, 32 * kLanes * kPacks * kClusterBlocks);
  if (in.width % kLanes != 0 || !Aligned16(in.logits) || threads > kMaxThreads) return kUnsupported;
  const auto blocks = static_cast<unsigned>(in.rows * kClusterBlocks);
  if (in.soft_cap == 0) {
    ClusterKernel<T, false><<<blocks, static_cast<unsigned>(threads), 0, stream>>>(in);
  } else {
    ClusterKernel<T, true><<<blocks, static_cast<unsigned>(threads), 0, stream>>>(in);
  }
  return cudaGetLastError();
}

bool HasClusters() {
  int device = 0;
  int major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major == 9;
}

}  // namespace

int CrossEntropyInClusters(const CrossEntropyRows& in, cudaStream_t stream) {
  if (in.width == 0 || !HasClusters()) return kUnsupported;
  return ForElement(in.element,
                    [&](auto element) { return Launch<decltype(element)>(in, stream); });
}

}  // namespace osler::cuda
