// The rows of rms_norm.h for one instruction set, one element type. Torch-free: raw pointers to
// contiguous [rows, width].
#pragma once

#include <stdint.h>

#include "kernels/element.h"
#include "kernels/norm_style.h"

namespace osler {

// x is normalised; with residual and sum, residual + x is, and is stored in sum; with residual
// alone, the normalised value is added to it.
struct NormForward {
  const void* x;
  const void* residual;  // or null
  const void* gain;      // [width] in the sums' type: w or 1 + w
  void* sum;             // or null
  void* y;
  void* inverse_rms;  // [rows] in the sums' type
  int64_t width;
  double eps;
  NormStyle style;
};

struct NormBackward {
  const void* grad;  // of the normalised value
  const void* x;     // what was normalised
  const void* gain;
  const void* inverse_rms;
  const void* grad_sum;  // added to the result, or null
  void* grad_x;
  int64_t width;
  NormStyle style;
};

// Rows [from, to). grad_gain, [width] in the sums' type, is added to; null: not wanted.
struct NormKernels {
  void (*forward)(const NormForward&, int64_t from, int64_t to);
  void (*backward)(const NormBackward&, void* grad_gain, int64_t from, int64_t to);
};

// By Element.
namespace portable {
extern const NormKernels kNormKernels[kElements];
}
namespace avx2 {
extern const NormKernels kNormKernels[kElements];
}
namespace avx512 {
extern const NormKernels kNormKernels[kElements];
}
namespace avx512_bf16 {
extern const NormKernels kNormKernels[kElements];
}
namespace amx {
extern const NormKernels kNormKernels[kElements];
}

}  // namespace osler
