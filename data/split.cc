#include "data/split.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/philox.h"

namespace osler {

std::unordered_set<std::string> HeldOutSubjects(const std::unordered_set<std::string>& subjects,
                                                double share, uint64_t seed) {
  if (share <= 0 || subjects.size() < 2) return {};
  const auto all = static_cast<int64_t>(subjects.size());
  const auto count =
      std::clamp<int64_t>(std::llround(share * static_cast<double>(all)), 1, all - 1);
  std::vector<std::pair<uint64_t, const std::string*>> ranked;
  for (const std::string& subject : subjects) {
    ranked.emplace_back(PhiloxBits(PhiloxKey(seed, "split/" + subject), 0), &subject);
  }
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : *a.second < *b.second;
  });
  std::unordered_set<std::string> held_out;
  for (int64_t i = 0; i < count; ++i) held_out.insert(*ranked[static_cast<size_t>(i)].second);
  return held_out;
}

}  // namespace osler
