#include "trainer/best_loss.h"

#include <cmath>

namespace osler {

bool BestLoss::Observe(int64_t step, double loss) {
  const bool finite = std::isfinite(loss);
  const bool improved =
      finite && (!state_.reference.has_value() || loss < *state_.reference - options_.min_delta);
  if (improved) state_.reference = loss;
  state_.stale_rounds = improved ? 0 : state_.stale_rounds + 1;
  const bool best = finite && (!state_.loss.has_value() || loss < *state_.loss);
  if (best) {
    state_.loss = loss;
    state_.step = step;
  }
  return best;
}

}  // namespace osler
