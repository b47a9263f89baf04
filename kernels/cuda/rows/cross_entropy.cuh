// What the kernels of cross-entropy share: the cap, and how parts of a row's softmax are merged.
#pragma once

#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/rows/launch.h"
#include "kernels/cuda/rows/reduce.cuh"

namespace osler::cuda {

inline constexpr float kLog2e = 1.4426950408889634F;

__device__ inline float Exp2(float v) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
}
__device__ inline float Exp(float v) { return Exp2(v * kLog2e); }

// z becomes limit · tanh(z / limit), with `share` the tangent.
template <bool kCap>
struct Capped {
  float limit, inverse;

  __device__ explicit Capped(float soft_cap)
      : limit(soft_cap), inverse(kCap ? 1 / soft_cap : 0.0F) {}
  __device__ float Share(float z) const {
    if constexpr (!kCap) return z;
    return 1 - __fdividef(2.0F, 1 + Exp2(z * (2 * kLog2e * inverse)));
  }
  __device__ float Value(float share) const { return kCap ? share * limit : share; }
  __device__ float operator()(float z) const { return Value(Share(z)); }
  // d value / dz
  __device__ float Slope(float share) const { return kCap ? 1 - share * share : 1.0F; }
};

__device__ inline ExpSum Merged(ExpSum a, ExpSum b) {
  const float max = fmaxf(a.max, b.max), base = FiniteOrZero(max);
  return {max, a.sum * Exp(a.max - base) + b.sum * Exp(b.max - base)};
}

// Over the block, blockDim.x a multiple of 32, in a fixed order; `scratch` is kMaxWarps values.
__device__ inline ExpSum BlockExpSum(ExpSum own, ExpSum* scratch) {
  const float max = WarpMax(own.max);
  const float sum = WarpSum(own.sum * Exp(own.max - FiniteOrZero(max)));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = {max, sum};
  __syncthreads();
  ExpSum whole = scratch[0];
  for (int warp = 1; warp < static_cast<int>(blockDim.x / 32); ++warp) {
    whole = Merged(whole, scratch[warp]);
  }
  return whole;
}

// Of a thread: adds values of which the largest is `largest`.
template <typename T, bool kCap, int kLanes>
__device__ inline void Add(const Pack<T, kLanes>& z, const Capped<kCap>& capped, ExpSum& own) {
  float v[kLanes], largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLanes; ++i) {
    v[i] = capped(z[i]);
    largest = fmaxf(largest, v[i]);
  }
  if (largest > own.max) {
    own.sum *= Exp(own.max - largest);
    own.max = largest;
  }
  const float base = -FiniteOrZero(own.max) * kLog2e;
#pragma unroll
  for (int i = 0; i < kLanes; ++i) own.sum += Exp2(fmaf(v[i], kLog2e, base));
}

// Turns logits into their gradient.
template <bool kCap>
struct Gradient {
  Capped<kCap> capped;
  float base, factor, scale;

  __device__ Gradient(const CrossEntropyRows& in, float max, float sum)
      : capped(in.soft_cap),
        base(-max * kLog2e),
        factor(in.gradient_scale / sum),
        scale(in.gradient_scale) {}
  __device__ float operator()(float z, bool is_target) const {
    const float share = capped.Share(z);
    const float p = Exp2(fmaf(capped.Value(share), kLog2e, base)) * factor;
    return (is_target ? p - scale : p) * capped.Slope(share);
  }

  // `target` is the target's place after the pack's first, if it stands in it.
  template <typename T, int kLanes>
  __device__ Pack<T, kLanes> operator()(const Pack<T, kLanes>& z, int64_t target) const {
    float v[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = (*this)(z[i], false);
    if (target >= 0 && target < kLanes) {
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        if (i == target) v[i] = (*this)(z[i], true);
      }
    }
    return Narrowed<T, kLanes>(v);
  }
};

// What is stored of a row once its softmax is known; z is its target's, without the cap.
template <bool kCap>
__device__ inline void StoreTerms(const CrossEntropyRows& in, int64_t row, ExpSum whole, bool here,
                                  float z) {
  const float target = here ? Capped<kCap>(in.soft_cap)(z) : 0;
  in.max[row] = whole.max;
  in.sum[row] = whole.sum;
  in.target[row] = target;
  if (in.loss == nullptr) return;
  in.loss[row] = in.targets[row] < 0 ? 0 : logf(whole.sum) - (target - whole.max);
}

// Returns 0, a cudaError_t, or kUnsupported: a row that does not fit, or a device that is no
// Hopper.
int CrossEntropyInClusters(const CrossEntropyRows& in, cudaStream_t stream);

}  // namespace osler::cuda
