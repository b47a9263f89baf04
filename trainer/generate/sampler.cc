#include "trainer/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace osler {
namespace {

// Ids whose logit is at least the k-th largest, ascending.
std::vector<int32_t> TopK(std::span<const double> logits, int64_t k) {
  std::vector<int32_t> ids;
  double least = -INFINITY;
  if (k > 0 && static_cast<size_t>(k) < logits.size()) {
    std::vector<double> values(logits.begin(), logits.end());
    const auto place = values.begin() + (k - 1);
    std::nth_element(values.begin(), place, values.end(), std::greater<>());
    least = *place;
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= least) ids.push_back(static_cast<int32_t>(i));
  }
  return ids;
}

// Drops all but the likeliest candidates whose probabilities reach p. Few are kept as a rule, so
// only a growing head of the list is sorted.
void KeepTopP(std::vector<Candidate>& candidates, double p) {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
  };
  size_t kept = 0, sorted = 0;
  double sum = 0;
  while (kept < candidates.size() && (kept == 0 || sum < p)) {
    if (kept == sorted) {
      const size_t end = std::min(candidates.size(), std::max<size_t>(64, 2 * sorted));
      const auto from = candidates.begin() + static_cast<ptrdiff_t>(sorted);
      std::partial_sort(from, candidates.begin() + static_cast<ptrdiff_t>(end), candidates.end(),
                        likelier);
      sorted = end;
    }
    sum += candidates[kept++].probability;
  }
  candidates.resize(kept);
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

void Normalize(std::vector<Candidate>& candidates) {
  const double sum = std::accumulate(
      candidates.begin(), candidates.end(), 0.0,
      [](double total, const Candidate& candidate) { return total + candidate.probability; });
  for (Candidate& candidate : candidates) candidate.probability /= sum;
}

}  // namespace

absl::Status CheckSampling(const SamplingOptions& options) {
  if (!(options.temperature >= 0) || std::isinf(options.temperature)) {
    return ConfigError(
        absl::StrCat("temperature is ", options.temperature, ", but must be 0 or above"));
  }
  if (options.top_k < 0) {
    return ConfigError(absl::StrCat("top-k is ", options.top_k, ", but must be 0 (all) or above"));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    return ConfigError(
        absl::StrCat("top-p is ", options.top_p, ", but must be above 0 and at most 1"));
  }
  return absl::OkStatus();
}

std::vector<Candidate> Candidates(std::span<const double> logits, const SamplingOptions& options) {
  const auto largest = std::max_element(logits.begin(), logits.end());
  if (options.temperature == 0) {
    return {{static_cast<int32_t>(largest - logits.begin()), 1}};
  }
  std::vector<Candidate> candidates;
  for (const int32_t id : TopK(logits, options.top_k)) {
    const double logit = logits[static_cast<size_t>(id)];
    candidates.push_back({id, std::exp((logit - *largest) / options.temperature)});
  }
  Normalize(candidates);
  if (options.top_p < 1) {
    KeepTopP(candidates, options.top_p);
    Normalize(candidates);
  }
  return candidates;
}

int32_t Pick(std::span<const Candidate> candidates, double uniform) {
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.probability;
    if (uniform < sum) return candidate.id;
  }
  // The probabilities' sum may fall short of 1 by rounding.
  const auto last =
      std::find_if(candidates.rbegin(), candidates.rend(),
                   [](const Candidate& candidate) { return candidate.probability > 0; });
  return last->id;
}

}  // namespace osler
