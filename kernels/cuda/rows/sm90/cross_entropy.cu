#include "kernels/cuda/rows/copy_async.cuh"
#include "kernels/cuda/rows/cross_entropy.cuh"

// One cluster of blocks a row, which it holds in its shared memory: the logits are read once.

namespace osler::cuda {
namespace {

constexpr int kMaxClusterBlocks = 8, kPacks = 5;
constexpr int kMaxThreads = 864;  // of the one block that a multiprocessor has room for
constexpr int kStages = 3;  // rows: one on its way, one whose softmax is found, one that is stored

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

// Over the cluster's blocks; `own` is this block's, in its shared memory, where it must stay until
// the cluster's next barrier.
__device__ inline ExpSum ClusterExpSum(const ExpSum* own) {
  const unsigned lane = threadIdx.x % 32;
  return WarpExpSum(lane < ClusterBlocks() ? OfBlock(own, lane) : ExpSum{-INFINITY, 0});
}

// A thread's part of a row: a sweep of the cluster's threads at a time.
template <typename T>
struct RowPart {
  static constexpr int kLanes = kWideLanes<T>;
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
  __device__ char* Row(int64_t row) const {
    return static_cast<char*>(in.logits) + row * in.width * T::kBytes;
  }
  // Past the last row too.
  __device__ int Target(int64_t row) const {
    return row < in.rows ? TargetColumn(in, row) : kNoTarget;
  }
  __device__ void Fetch(int64_t row, int target, Place& place) const {
    if (target != kNoTarget) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        if (Begin(k) < in.width) CopyPackAsync(&place[k][threadIdx.x % 32], Row(row), Begin(k));
      }
    }
    CommitCopies();
  }
  template <bool kCap>
  __device__ ExpSum ThreadExpSum(const Place& place) const {
    Pack<T, kLanes> z[kPacks];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      z[k] = Begin(k) < in.width ? place[k][threadIdx.x % 32] : FilledPack<T, kLanes>(T::kLowest);
    }
    ExpSum own = {-INFINITY, 0};
    Add(z, (in.width - first + step - 1) / step, Capped<kCap>(in.soft_cap), own);
    return own;
  }
  template <bool kCap>
  __device__ void StoreGradient(int64_t row, int target, ExpSum whole, const Place& place) const {
    const Gradient<kCap> gradient(in, whole.max, whole.sum);
    TargetLogit found;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      if (Begin(k) >= in.width) continue;
      const Pack<T, kLanes> z = place[k][threadIdx.x % 32];
      found.Look(z, target - Begin(k));
      StorePack(Row(row), Begin(k), target == kNoTarget ? FilledPack<T, kLanes>(0) : gradient(z));
    }
    found.Store<T>(gradient, Row(row), target);
  }
};

// Each cluster takes every so many rows. While its blocks exchange what they found of a row's
// softmax, they store the gradient of the row before.
template <typename T, bool kCap>
__global__ void __launch_bounds__(kMaxThreads, 1) ClusterKernel(const CrossEntropyRows in) {
  using Place = typename RowPart<T>::Place;
  extern __shared__ float4 shared[];  // [kStages][warps] of Place
  __shared__ ExpSum scratch[2][kMaxWarps], of_block[2];
  const RowPart<T> part(in);
  const unsigned warps = blockDim.x / 32;
  const bool storing = ClusterRank() == 0 && threadIdx.x == 0;
  Place* now = reinterpret_cast<Place*>(shared) + threadIdx.x / 32;
  Place *next = now + warps, *before = next + warps;
  const int64_t clusters = gridDim.x / ClusterBlocks(), begin = blockIdx.x / ClusterBlocks();
  int target = part.Target(begin), next_target = part.Target(begin + clusters);
  int third_target = part.Target(begin + 2 * clusters);
  part.Fetch(begin, target, *now);
  part.Fetch(begin + clusters, next_target, *next);

  int target_before = kNoTarget, turn = 0;  // turn: of what the blocks share, from use to use
  float logit = 0, logit_before = 0;
  ExpSum whole_before = {0, 1};
  for (int64_t row = begin; row < in.rows + clusters; row += clusters) {
    const int coming_target = part.Target(row + 3 * clusters);
    if (target != kNoTarget) {
      WaitForCopies<1>();
      if (storing && target >= 0) logit = LoadPack<T, 1>(part.Row(row), target)[0];
      const ExpSum own = BlockExpSum(part.template ThreadExpSum<kCap>(*now), scratch[turn]);
      if (threadIdx.x == 0) of_block[turn] = own;
      ClusterArrive();
    }
    if (row != begin) {
      const int64_t row_before = row - clusters;
      part.template StoreGradient<kCap>(row_before, target_before, whole_before, *before);
      if (storing) StoreTerms<kCap>(in, row_before, whole_before, target_before, logit_before);
    }
    part.Fetch(row + 2 * clusters, third_target, *before);
    if (target != kNoTarget) {
      ClusterWait();
      whole_before = ClusterExpSum(&of_block[turn]);
      turn ^= 1;
    } else {
      whole_before = {0, 1};
    }
    target_before = target, target = next_target, next_target = third_target;
    third_target = coming_target;
    logit_before = logit;
    Place* const free = before;
    before = now, now = next, next = free;
  }
  ClusterArrive();  // no block leaves while another may look at what it holds
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
  const auto kernel = in.soft_cap == 0 ? ClusterKernel<T, false> : ClusterKernel<T, true>;
  const auto threads =
      static_cast<unsigned>(32 * CeilDiv(in.width, int64_t{32} * kLanes * kPacks * cluster));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(cluster));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = kStages * threads / 32 * sizeof(typename RowPart<T>::Place);
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
