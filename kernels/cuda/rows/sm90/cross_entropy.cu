#include "kernels/cuda/rows/copy_async.cuh"
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
// Of the cluster's threads.
__device__ inline void ClusterBarrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
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

// Over the cluster's blocks; `own` is this block's, in its shared memory, where it must stay until
// the cluster's next barrier.
__device__ inline ExpSum ClusterExpSum(const ExpSum* own) {
  ClusterBarrier();
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

// A thread's part of a row: a sweep of the cluster's threads at a time.
template <typename T>
struct RowPart {
  static constexpr int kLanes = kWideLanes<T>;
  using Packs = Pack<T, kLanes>[kPacks];
  // A warp's: each lane reads what it has copied itself, so that no barrier is needed; a copy's
  // lanes write neighbouring packs, else it is many requests.
  using Place = Pack<T, kLanes>[kPacks][32];
  const CrossEntropyRows& in;
  int first, step;

  __device__ explicit RowPart(const CrossEntropyRows& arguments)
      : in(arguments),
        first(static_cast<int>(ClusterRank() * blockDim.x + threadIdx.x) * kLanes),
        step(static_cast<int>(ClusterBlocks() * blockDim.x) * kLanes) {}
  __device__ int Begin(int k) const { return first + k * step; }
  __device__ int Count() const { return (in.width - first + step - 1) / step; }
  __device__ char* Row(int64_t row) const {
    return static_cast<char*>(in.logits) + row * in.width * T::kBytes;
  }
  __device__ void Fetch(int64_t row, int64_t label, Place& place) const {
    if (label >= 0) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        if (Begin(k) < in.width) CopyPackAsync(&place[k][threadIdx.x % 32], Row(row), Begin(k));
      }
    }
    CommitCopies();
  }
  __device__ int64_t Label(int64_t row) const { return row < in.rows ? in.targets[row] : -1; }
  __device__ void Take(const Place& place, Packs& z) const {
    WaitForCopies<0>();
#pragma unroll
    for (int k = 0; k < kPacks; ++k)
      z[k] = Begin(k) < in.width ? place[k][threadIdx.x % 32] : FilledPack<T, kLanes>(T::kLowest);
  }
  __device__ void Clear(int64_t row) const {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (Begin(k) < in.width) StorePack(Row(row), Begin(k), FilledPack<T, kLanes>(0));
    }
  }
};

// Each cluster takes every so many rows: the next row is on its way while one is worked on.
template <typename T, bool kCap>
__global__ void __launch_bounds__(kMaxThreads, 2) ClusterKernel(const CrossEntropyRows in) {
  using Packs = typename RowPart<T>::Packs;
  extern __shared__ float4 shared[];
  __shared__ ExpSum scratch[2][kMaxWarps], of_block[2];
  const RowPart<T> part(in);
  auto& place = reinterpret_cast<typename RowPart<T>::Place*>(shared)[threadIdx.x / 32];
  const int64_t clusters = gridDim.x / ClusterBlocks();
  const bool storing = ClusterRank() == 0 && threadIdx.x == 0;
  int64_t row = blockIdx.x / ClusterBlocks();
  int64_t label = part.Label(row), next_label = part.Label(row + clusters);
  part.Fetch(row, label, place);
  int turn = 0;  // alternates from use to use of what the blocks share
  for (; row < in.rows; row += clusters) {
    const int64_t target = label - in.begin;
    const bool here = label >= 0 && target >= 0 && target < in.width;
    char* logits = part.Row(row);
    Packs z;
    part.Take(place, z);
    part.Fetch(row + clusters, next_label, place);
    const bool none = label < 0;
    label = next_label;
    next_label = part.Label(row + 2 * clusters);
    if (none) {
      part.Clear(row);
      if (storing) StoreTerms<false>(in, row, {0, 1}, false, 0);
      continue;
    }
    const float target_logit = storing && here ? LoadPack<T, 1>(logits, target)[0] : 0.0F;
    ExpSum own = {-INFINITY, 0};
    Add(z, part.Count(), Capped<kCap>(in.soft_cap), own);
    own = BlockExpSum(own, scratch[turn]);
    if (threadIdx.x == 0) of_block[turn] = own;
    const ExpSum whole = ClusterExpSum(&of_block[turn]);
    if (storing) StoreTerms<kCap>(in, row, whole, here, target_logit);

    if (kCap) Forget(z);
    const Gradient<kCap> gradient(in, whole.max, whole.sum);
    TargetLogit found;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (part.Begin(k) >= in.width) continue;
      found.Look(z[k], target - part.Begin(k));
      StorePack(logits, part.Begin(k), gradient(z[k]));
    }
    found.Store<T>(gradient, logits, target);
    turn ^= 1;
  }
  ClusterBarrier();  // no block leaves while another may look at what it holds
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
  const auto kernel = in.soft_cap == 0 ? ClusterKernel<T, false> : ClusterKernel<T, true>;
  const auto threads =
      static_cast<unsigned>(32 * CeilDiv(in.width, int64_t{32} * kLanes * kPacks * cluster));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(cluster));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = threads * sizeof(typename RowPart<T>::Packs);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  cudaError_t result = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(config.dynamicSmemBytes));
  int clusters = 0;  // that there is room for
  if (result == cudaSuccess) result = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
  if (result != cudaSuccess) return result;
  if (clusters == 0) return kUnsupported;
  config.gridDim.x = static_cast<unsigned>(cluster * std::min<int64_t>(clusters, in.rows));
  return cudaLaunchKernelEx(&config, kernel, in);
}

}  // namespace

int CrossEntropyInClusters(const CrossEntropyRows& in, cudaStream_t stream) {
  if (in.width == 0 || ComputeCapabilityMajor() != 9) return kUnsupported;
  return ForElement(in.element,
                    [&](auto element) { return Launch<decltype(element)>(in, stream); });
}

}  // namespace osler::cuda
