// What the warpgroups of a ForwardKernel share: its shape, its parameters, the tiles it walks and
// where it stands in its rings.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/sm90/attention_forward_softmax.cuh"
#include "kernels/cuda/sm90/attention_output.cuh"
#include "kernels/cuda/sm90/barrier.cuh"

namespace osler::cuda::sm90 {

// What a warpgroup does while its own product with the values runs: nothing, the next softmax, or
// its rounding to operands too, which takes a second set of registers. Narrow heads have more
// softmax than product to hide it under: there the compiler's own order is the faster one.
enum class Overlap { kNone, kSoftmax, kWeights };

template <int kWidth_, int kKeys_, int kGroups_, int kStages_, Overlap kOverlap_, class T_,
          bool kSoftCap_>
struct ForwardTraits {
  using T = T_;
  static constexpr int kWidth = kWidth_;    // of a head, padded
  static constexpr int kKeys = kKeys_;      // of a key tile
  static constexpr int kGroups = kGroups_;  // consumer warpgroups
  static constexpr int kStages = kStages_;
  static constexpr Overlap kOverlap = kOverlap_;
  static constexpr bool kSoftCap = kSoftCap_;
  static constexpr int kQueries = 64 * kGroups;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kTileBytes = kKeys * kWidth * 2;
  static constexpr int kProducerRegisters = kGroups == 2 ? 24 : 32;
  static constexpr int kConsumerRegisters = kGroups == 2 ? 240 : 160;

  struct Shared {
    alignas(1024) char q[kQueries * kWidth * 2];
    alignas(1024) char k[kStages][kTileBytes];
    alignas(1024) char v[kStages][kTileBytes];
    Mbarrier q_full, q_empty;
    Mbarrier k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
  };
};

struct ForwardParameters {
  const int32_t* lo;
  const int32_t* hi;
  OutputRows out;
  float* lse;
  ScoreScale scale;
  int queries, heads, group, width;  // group: query heads a key head
  int tiles;                         // of queries, in all heads
};

// A query tile's place, and the key tiles that it walks from the last to the first.
struct TileWork {
  int query, head, first_key, key_tiles;
};
template <class Traits>
__device__ inline TileWork WorkOfTile(const ForwardParameters& p, int index) {
  TileWork work;
  const int from_last = index / p.heads;
  work.head = index - from_last * p.heads;
  work.query = (p.tiles / p.heads - 1 - from_last) * Traits::kQueries;
  work.first_key = p.lo[work.query];
  const int end = p.hi[min(work.query + Traits::kQueries, p.queries) - 1];
  work.key_tiles = max(0, (end - work.first_key + Traits::kKeys - 1) / Traits::kKeys);
  return work;
}

template <class Traits>
struct ForwardRing {
  RingPosition<Traits::kStages> k, v;
  uint32_t q_parity = 0;
};

}  // namespace osler::cuda::sm90
