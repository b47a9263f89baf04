#include "kernels/cuda/rows/cross_entropy.cuh"

// One cluster of blocks a row, which it holds in its registers: the logits are read once.

namespace osler::cuda {
namespace {

constexpr int kMaxClusterBlocks = 8, kPacks = 9;
constexpr int kMaxThreads = 512;  // two such blocks a multiprocessor: one reads while one writes

__device__ inline unsigned ClusterBlocks() {
  unsigned blocks;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  return blocks;
}
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

// Over the cluster's blocks; `own` is this block's, in its shared memory. Another barrier of the
// cluster must come before the block ends.
__device__ inline ExpSum ClusterExpSum(const ExpSum* own) {
  ClusterArrive();
  ClusterWait();
  const unsigned lane = threadIdx.x % 32;
  return WarpExpSum(lane < ClusterBlocks() ? OfBlock(own, lane) : ExpSum{-INFINITY, 0});
}

// What was computed from z is computed again rather than kept: registers are short.
template <typename T, int kLanes>
__device__ inline void Forget(Pack<T, kLanes> (&z)[kPacks]) {
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
#pragma unroll
    for (uint32_t& word : z[k].words) asm volatile("" : "+r"(word));
  }
}

template <typename T, bool kCap>
__global__ void __launch_bounds__(kMaxThreads, 2) ClusterKernel(const CrossEntropyRows in) {
  constexpr int kLanes = kWideLanes<T>;
  __shared__ ExpSum scratch[kMaxWarps];
  __shared__ ExpSum of_block;
  const unsigned rank = ClusterRank(), blocks = ClusterBlocks();
  const int64_t row = blockIdx.x / blocks;
  char* logits = static_cast<char*>(in.logits) + row * in.width * T::kBytes;
  // The cluster goes through the row a sweep of packs at a time.
  const int step = static_cast<int>(blocks * blockDim.x) * kLanes;
  const int first = static_cast<int>(rank * blockDim.x + threadIdx.x) * kLanes;
  const int64_t label = in.targets[row], target = label - in.begin;
  const bool storing = rank == 0 && threadIdx.x == 0;
  Pack<T, kLanes> z[kPacks];
  if (label < 0) {  // for the whole cluster
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (first + k * step < in.width)
        StorePack(logits, first + k * step, FilledPack<T, kLanes>(0));
    }
    if (storing) StoreTerms<false>(in, row, {0, 1}, false, 0);
    return;
  }
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    z[k] = i < in.width ? LoadPack<T, kLanes>(logits, i) : FilledPack<T, kLanes>(T::kLowest);
  }
  const bool here = target >= 0 && target < in.width;
  const float target_logit = storing && here ? LoadPack<T, 1>(logits, target)[0] : 0.0F;

  ExpSum own = {-INFINITY, 0};
  Add(z, Capped<kCap>(in.soft_cap), own);
  own = BlockExpSum(own, scratch);
  if (threadIdx.x == 0) of_block = own;
  const ExpSum whole = ClusterExpSum(&of_block);
  ClusterArrive();
  if (storing) StoreTerms<kCap>(in, row, whole, here, target_logit);

  if (kCap) Forget(z);
  const Gradient<kCap> gradient(in, whole.max, whole.sum);
  TargetLogit found;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = first + k * step;
    if (i >= in.width) continue;
    found.Look(z[k], target - i);
    StorePack(logits, i, gradient(z[k]));
  }
  found.Store<T>(gradient, logits, target);
  ClusterWait();
}

// The smallest cluster that holds a row; 0: none does.
int ClusterFor(int packs) {
  for (int blocks = 1; blocks <= kMaxClusterBlocks; blocks *= 2) {
    if (packs <= blocks * kMaxThreads * kPacks) return blocks;
  }
  return 0;
}

template <typename T>
int Launch(const CrossEntropyRows& in, cudaStream_t stream) {
  constexpr int kLanes = kWideLanes<T>;
  const int cluster = ClusterFor(in.width / kLanes);
  if (in.width % kLanes != 0 || !Aligned16(in.logits) || cluster == 0) return kUnsupported;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(in.rows * cluster));
  config.blockDim =
      dim3(static_cast<unsigned>(32 * CeilDiv(in.width, int64_t{32} * kLanes * kPacks * cluster)));
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return in.soft_cap == 0 ? cudaLaunchKernelEx(&config, ClusterKernel<T, false>, in)
                          : cudaLaunchKernelEx(&config, ClusterKernel<T, true>, in);
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
