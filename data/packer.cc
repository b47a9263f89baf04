#include "data/packer.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

namespace osler {

std::vector<PackPlan> PackBestFit(const std::vector<Piece>& pieces, int64_t capacity) {
  std::vector<size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return pieces[a].length > pieces[b].length; });
  std::vector<std::vector<size_t>> packs;
  std::set<std::pair<int64_t, size_t>> room;  // (free tokens, pack)
  for (const size_t piece : order) {
    const int64_t length = pieces[piece].length;
    auto best = room.lower_bound({length, 0});
    std::pair<int64_t, size_t> pack{capacity, packs.size()};
    if (best == room.end()) {
      packs.emplace_back();
    } else {
      pack = *best;
      room.erase(best);
    }
    packs[pack.second].push_back(piece);
    if (pack.first > length) room.insert({pack.first - length, pack.second});
  }
  std::vector<PackPlan> plans;
  plans.reserve(packs.size());
  for (std::vector<size_t>& pack : packs) {
    std::sort(pack.begin(), pack.end());
    PackPlan& plan = plans.emplace_back();
    for (const size_t piece : pack) plan.push_back(pieces[piece]);
  }
  return plans;
}

std::vector<PackPlan> PackNextFit(const std::vector<Piece>& pieces, int64_t capacity) {
  std::vector<PackPlan> packs;
  int64_t room = 0;
  for (const Piece& piece : pieces) {
    if (packs.empty() || piece.length > room) {
      packs.emplace_back();
      room = capacity;
    }
    packs.back().push_back(piece);
    room -= piece.length;
  }
  return packs;
}

std::vector<PackPlan> PackSingly(const std::vector<Piece>& pieces) {
  std::vector<PackPlan> packs;
  packs.reserve(pieces.size());
  for (const Piece& piece : pieces) packs.push_back({piece});
  return packs;
}

}  // namespace osler
