// Launches a ForwardKernel.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/sm90/attention_forward_kernel.cuh"
#include "kernels/cuda/sm90/attention_forward_launch.h"

namespace osler::cuda::sm90 {

inline ScoreScale MakeScoreScale(const AttentionInput& in) {
  constexpr float kLog2E = 1.44269504088896341f;
  return {in.scale * kLog2E, in.soft_cap > 0 ? in.scale / in.soft_cap : 0, in.soft_cap * kLog2E};
}

inline int Multiprocessors() {
  int device = 0;
  int count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return std::max(count, 1);
}

template <class Traits>
int LaunchForward(const AttentionForward& arguments, cudaStream_t stream) {
  const AttentionInput& in = arguments.in;
  CUtensorMap q, k, v;
  // A tensor without keys has no map; none is read, as every row is empty then.
  if (!MakeTensorMap(&q, in.q, in.queries, in.heads, in.width, Traits::kQueries, in.element) ||
      (in.keys > 0 &&
       (!MakeTensorMap(&k, in.k, in.keys, in.key_heads, in.width, Traits::kKeys, in.element) ||
        !MakeTensorMap(&v, in.v, in.keys, in.key_heads, in.width, Traits::kKeys, in.element)))) {
    return kUnsupported;
  }
  const int tiles = (in.queries + Traits::kQueries - 1) / Traits::kQueries * in.heads;
  const ForwardParameters parameters{.lo = in.lo,
                                     .hi = in.hi,
                                     .out = MakeOutputRows(arguments.out, arguments.out_element),
                                     .lse = arguments.lse,
                                     .scale = MakeScoreScale(in),
                                     .queries = in.queries,
                                     .heads = in.heads,
                                     .group = in.heads / in.key_heads,
                                     .width = in.width,
                                     .tiles = tiles};
  auto* kernel = &ForwardKernel<Traits>;
  constexpr int kBytes = sizeof(typename Traits::Shared);
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (prepared != cudaSuccess) return prepared;
  static const int multiprocessors = Multiprocessors();
  kernel<<<std::min(tiles, multiprocessors), Traits::kThreads, kBytes, stream>>>(q, k, v,
                                                                                 parameters);
  return cudaGetLastError();
}

// The kernel for the element and the soft cap asked for. kCappedKeys: of a key tile where there is
// a soft cap, which takes registers of its own.
template <int kWidth, int kKeys, int kCappedKeys, int kGroups, int kStages, Overlap kOverlap>
int LaunchForwardOfShape(const AttentionForward& arguments, cudaStream_t stream) {
  auto launch = [&](auto type, auto capped) {
    constexpr bool kCapped = decltype(capped)::value;
    using Traits = ForwardTraits<kWidth, kCapped ? kCappedKeys : kKeys, kGroups, kStages, kOverlap,
                                 decltype(type), kCapped>;
    return LaunchForward<Traits>(arguments, stream);
  };
  const bool capped = arguments.in.soft_cap > 0;
  if (arguments.in.element == Element::kBf16) {
    return capped ? launch(__nv_bfloat16{}, std::true_type{})
                  : launch(__nv_bfloat16{}, std::false_type{});
  }
  return capped ? launch(__half{}, std::true_type{}) : launch(__half{}, std::false_type{});
}

}  // namespace osler::cuda::sm90
