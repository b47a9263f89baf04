// How the pieces of one window share packs. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "data/plan.h"

namespace osler {

// Every function wants pieces of 1 to `capacity` tokens in stream order; a pack holds up to exactly
// `capacity` tokens and keeps its pieces in stream order.

// Best-fit decreasing: the longest piece first, into the fullest pack that still has room (ties:
// the older pack, the earlier piece). Wastes less than 1/4 in the worst case, close to nothing on
// mixed lengths. O(n log n).
std::vector<PackPlan> PackBestFit(const std::vector<Piece>& pieces, int64_t capacity);

// Next-fit: packs one after another, so that their concatenation is the stream itself.
std::vector<PackPlan> PackNextFit(const std::vector<Piece>& pieces, int64_t capacity);

// One piece a pack.
std::vector<PackPlan> PackSingly(const std::vector<Piece>& pieces);

}  // namespace osler
