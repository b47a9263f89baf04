// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC'11). A value is a pure function of (key, counter), so results never depend on
// threads, ranks or order.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace osler {

using Philox4 = std::array<uint32_t, 4>;

// The ten-round Philox4x32 bijection of `counter` under the 64-bit `key`.
Philox4 Philox(uint64_t key, const Philox4& counter);

// A key for one purpose: mixes the run's seed with a channel name ("init/model.norm.weight",
// "shuffle", …).
uint64_t PhiloxKey(uint64_t seed, std::string_view channel);

// 64 random bits for index `index` (and sub-stream `stream`) of a key.
uint64_t PhiloxBits(uint64_t key, uint64_t index, uint64_t stream = 0);

// Uniform in [0, 1) with 53 bits.
double PhiloxUniform(uint64_t key, uint64_t index, uint64_t stream = 0);

// Standard normal (Box–Muller on one Philox block).
double PhiloxNormal(uint64_t key, uint64_t index, uint64_t stream = 0);

// A keyed bijection of [0, size): a four-round Feistel network over the next power of four with
// cycle walking, O(1) memory and expected O(1) time. PRE: index < size.
uint64_t PermuteIndex(uint64_t key, uint64_t index, uint64_t size);

}  // namespace osler
