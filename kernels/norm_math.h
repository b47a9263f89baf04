// The arithmetic of RMS normalisation that norms and norm-then-rotate share. For *_isa.cc files:
// see vector.h.
#pragma once

#include <math.h>

#include "kernels/norm_style.h"
#include "kernels/vector.h"

namespace osler {
namespace {

// The value that multiplies the gain.
template <typename T, NormStyle style>
inline Vec<Sum<T>> Normalised(Vec<Sum<T>> x, Sum<T> inverse_rms) {
  return style == NormStyle::kGemma ? x * inverse_rms : Rounded<T>(x * inverse_rms);
}

template <typename A>
inline A InverseRms(A sum_of_squares, int64_t width, double eps) {
  const A mean = sum_of_squares / static_cast<A>(width) + static_cast<A>(eps);
  return 1 / static_cast<A>(sqrt(static_cast<double>(mean)));
}

// With d the gradient of the normalised value n = x·r, ∂x = r (d − n mean(d n)) = r·d − c·x; this
// is c, from Σ d x.
template <typename A>
inline A PullBack(A dot, A inverse_rms, int64_t width) {
  return dot / static_cast<A>(width) * inverse_rms * inverse_rms * inverse_rms;
}

}  // namespace
}  // namespace osler
