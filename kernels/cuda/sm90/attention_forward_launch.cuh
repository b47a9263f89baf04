// Launches a ForwardKernel.
#pragma once

#include <algorithm>

#include "kernels/cuda/entry.cuh"
#include "kernels/cuda/sm90/attention_forward_kernel.cuh"
#include "kernels/cuda/sm90/attention_forward_launch.h"
#include "kernels/cuda/sm90/instances.cuh"

namespace osler::cuda::sm90 {

inline ScoreScale MakeScoreScale(const AttentionInput& in) {
  return {in.scale * kLog2E, in.soft_cap > 0 ? in.scale / in.soft_cap : 0, in.soft_cap * kLog2E};
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
  return LaunchWithShared(ForwardKernel<Traits>, std::min(tiles, Multiprocessors()),
                          Traits::kThreads, sizeof(typename Traits::Shared), stream, q, k, v,
                          parameters);
}

// The kernel for the element and the soft cap asked for. kCappedKeys: of a key tile where there is
// a soft cap, which takes registers of its own.
template <int kWidth, int kKeys, int kCappedKeys, int kGroups, int kStages, Overlap kOverlap>
int LaunchForwardOfShape(const AttentionForward& arguments, cudaStream_t stream) {
  return ForElementAndCap(arguments.in, [&](auto element, auto capped) {
    constexpr bool kCapped = decltype(capped)::value;
    using Traits = ForwardTraits<kWidth, kCapped ? kCappedKeys : kKeys, kGroups, kStages, kOverlap,
                                 decltype(element), kCapped>;
    return LaunchForward<Traits>(arguments, stream);
  });
}

}  // namespace osler::cuda::sm90
