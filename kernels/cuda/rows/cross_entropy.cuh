// What the kernels of cross-entropy share: the cap, and how parts of a row's softmax are merged.
#pragma once

#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/device_functions.cuh"
#include "kernels/cuda/rows/launch.h"
#include "kernels/cuda/rows/reduce.cuh"

namespace osler::cuda {

__device__ inline float Exp(float v) { return Exp2(v * kLog2E); }

// z becomes limit · tanh(z / limit), with `share` the tangent.
template <bool kCap>
struct Capped {
  float limit, rate;

  __device__ explicit Capped(float soft_cap)
      : limit(soft_cap), rate(kCap ? 2 * kLog2E / soft_cap : 0.0F) {}
  __device__ float Share(float z) const {
    if constexpr (!kCap) return z;
    return 1 - __fdividef(2.0F, Power(z));
  }
  // Of a pack: reciprocals are scarce, so two shares take one.
  template <typename T, int kLanes>
  __device__ void Shares(const Pack<T, kLanes>& z, float (&share)[kLanes]) const {
    if constexpr (!kCap || kLanes == 1) {
#pragma unroll
      for (int i = 0; i < kLanes; ++i) share[i] = Share(z[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kLanes; i += 2) {
        const float a = Power(z[i]), b = Power(z[i + 1]), r = __fdividef(-2.0F, a * b);
        share[i] = fmaf(r, b, 1.0F);
        share[i + 1] = fmaf(r, a, 1.0F);
      }
    }
  }
  __device__ float Value(float share) const { return kCap ? share * limit : share; }
  __device__ float operator()(float z) const { return Value(Share(z)); }
  // d value / dz
  __device__ float Slope(float share) const { return kCap ? 1 - share * share : 1.0F; }

 private:
  // 1 + e^(2z / limit), where it is at most 2⁶⁰: the product of two is no infinity. NaN stays.
  __device__ float Power(float z) const {
    float exponent;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(exponent) : "f"(z * rate), "f"(60.0F));
    return 1 + Exp2(exponent);
  }
};

// Over the lanes of a warp, in a fixed order.
__device__ inline ExpSum WarpExpSum(ExpSum own) {
  const float max = WarpMax(own.max);
  return {max, WarpSum(own.sum * Exp(own.max - FiniteOrZero(max)))};
}

// Over the block, blockDim.x a multiple of 32; `scratch` is kMaxWarps values.
__device__ inline ExpSum BlockExpSum(ExpSum own, ExpSum* scratch) {
  const unsigned lane = threadIdx.x % 32;
  own = WarpExpSum(own);
  if (lane == 0) scratch[threadIdx.x / 32] = own;
  __syncthreads();
  return WarpExpSum(lane < blockDim.x / 32 ? scratch[lane] : ExpSum{-INFINITY, 0});
}

template <typename T, int kLanes>
__device__ inline float Largest(const Pack<T, kLanes>& z) {
  float largest = z[0];
#pragma unroll
  for (int i = 1; i < kLanes; ++i) largest = fmaxf(largest, z[i]);
  return largest;
}

// Adds the first `count` of a thread's packs; the others hold −∞. Their maximum comes first, as the
// cap keeps their order.
template <typename T, bool kCap, int kLanes, int kPacks>
__device__ inline void Add(const Pack<T, kLanes> (&z)[kPacks], int count,
                           const Capped<kCap>& capped, ExpSum& own) {
  Pack<T, kLanes> top = z[0];
#pragma unroll
  for (int k = 1; k < kPacks; ++k) top = Maximum(top, z[k]);
  const float largest = capped(Largest(top));
  if (largest > own.max) {
    own.sum *= Exp(own.max - largest);
    own.max = largest;
  }
  const float base = -FiniteOrZero(own.max) * kLog2E;
  float sums[4] = {};
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (kCap && k >= count) continue;  // the cap turns −∞ into −limit
    float share[kLanes];
    capped.Shares(z[k], share);
#pragma unroll
    for (int i = 0; i < kLanes; ++i)
      sums[i % 4] += Exp2(fmaf(capped.Value(share[i]), kLog2E, base));
  }
  own.sum += (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Turns logits into their gradient.
template <bool kCap>
struct Gradient {
  Capped<kCap> capped;
  float base, factor, scale;

  __device__ Gradient(const CrossEntropyRows& in, float max, float sum)
      : capped(in.soft_cap),
        base(-max * kLog2E),
        factor(in.gradient_scale / sum),
        scale(in.gradient_scale) {}
  __device__ float FromShare(float share, float one_hot) const {
    const float p = Exp2(fmaf(capped.Value(share), kLog2E, base)) * factor;
    return (p - one_hot) * capped.Slope(share);
  }
  __device__ float OfTarget(float z) const { return FromShare(capped.Share(z), scale); }
  // Of logits none of which is the target's.
  template <typename T, int kLanes>
  __device__ Pack<T, kLanes> operator()(const Pack<T, kLanes>& z) const {
    float v[kLanes];
    capped.Shares(z, v);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) v[i] = FromShare(v[i], 0);
    return Narrowed<T, kLanes>(v);
  }
};

// The target's logit, if it stands in one of a thread's packs.
struct TargetLogit {
  bool here = false;
  float z = 0;

  // `place` is the target's after the pack's first element.
  template <typename T, int kLanes>
  __device__ void Look(const Pack<T, kLanes>& pack, int64_t place) {
    if (place < 0 || place >= kLanes) return;
    here = true;
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      if (i == place) z = pack[i];
    }
  }
  // After the thread has stored the pack.
  template <typename T, bool kCap>
  __device__ void Store(const Gradient<kCap>& gradient, void* logits, int64_t target) const {
    if (!here) return;
    const float one[1] = {gradient.OfTarget(z)};
    StorePack(logits, target, Narrowed<T, 1>(one));
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
