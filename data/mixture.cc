#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace osler {
namespace {

using Wide = __int128;
constexpr double kScale = 0x1.0p50;

}  // namespace

Mixture::Mixture(const std::vector<double>& weights) {
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;  // of ratios to the largest: weights near the ends of double's range neither
                   // overflow nor vanish
  for (const double weight : weights) sum += weight / largest;
  for (const double weight : weights) {
    const auto share = static_cast<int64_t>(std::llround(weight / largest / sum * kScale));
    shares_.push_back(weight > 0 ? std::max<int64_t>(1, share) : 0);
  }
  total_ = std::accumulate(shares_.begin(), shares_.end(), int64_t{0});
}

int32_t Mixture::Choose(const std::vector<int64_t>& taken) const {
  if (shares_.size() == 1) return 0;
  const Wide next = std::accumulate(taken.begin(), taken.end(), int64_t{1});
  const Wide slack = 2 * static_cast<Wide>(shares_.size()) - 2;
  int32_t best = -1;
  Wide best_deadline = 0;
  for (size_t k = 0; k < shares_.size(); ++k) {
    const Wide deficit = shares_[k] * next - static_cast<Wide>(taken[k]) * total_;
    if (shares_[k] == 0 || deficit * slack < total_) continue;
    const Wide deadline =
        total_ * ((static_cast<Wide>(taken[k]) + 1) * slack - 1) / (slack * shares_[k]);
    if (best >= 0 && deadline >= best_deadline) continue;
    best = static_cast<int32_t>(k);
    best_deadline = deadline;
  }
  OSLER_CHECK(best >= 0);  // the deficits sum to one sample, so the largest is at least 1/K
  return best;
}

bool Mixture::Fits(const std::vector<int64_t>& taken) const {
  const Wide count = std::accumulate(taken.begin(), taken.end(), int64_t{0});
  for (size_t k = 0; k < shares_.size(); ++k) {
    const Wide deficit = shares_[k] * count - static_cast<Wide>(taken[k]) * total_;
    if (deficit > total_ || -deficit > total_) return false;
  }
  return true;
}

}  // namespace osler
