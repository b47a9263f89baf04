// The tokens of norm_rope.h and of ApplyRope for one instruction set, one element type. Torch-free:
// raw pointers.
#pragma once

#include <stdint.h>

#include "kernels/element.h"
#include "kernels/norm_style.h"

namespace osler {

// [T, H, D] with D dense.
struct HeadsLayout {
  int64_t token_stride, head_stride;
};

struct RopeShape {
  int64_t heads, width;
  const float* cos;  // the first width / 2 of each row of [T, D]
  const float* sin;
  int64_t table_stride;
};

struct RopeForward {
  RopeShape shape;
  const void* x;
  HeadsLayout x_layout;
  void* y;            // contiguous
  const void* gain;   // [D] in the sums' type, or null: rotate only
  void* inverse_rms;  // [T, H] in the sums' type, or null with gain
  double eps;
  NormStyle style;
};

struct RopeBackward {
  RopeShape shape;
  const void* grad;
  HeadsLayout grad_layout;
  void* grad_x;      // contiguous
  const void* gain;  // null: rotate only, and the next three are not read
  const void* x;
  HeadsLayout x_layout;
  const void* inverse_rms;
  NormStyle style;
};

// Tokens [from, to). grad_gain, [D] in the sums' type, is added to; null: not wanted.
struct RopeKernels {
  void (*forward)(const RopeForward&, int64_t from, int64_t to);
  void (*backward)(const RopeBackward&, void* grad_gain, int64_t from, int64_t to);
};

// By Element.
namespace portable {
extern const RopeKernels kRopeKernels[kElements];
}
namespace avx2 {
extern const RopeKernels kRopeKernels[kElements];
}
namespace avx512 {
extern const RopeKernels kRopeKernels[kElements];
}
namespace avx512_bf16 {
extern const RopeKernels kRopeKernels[kElements];
}
namespace amx {
extern const RopeKernels kRopeKernels[kElements];
}

}  // namespace osler
