// The rows of gated_activation.h for one instruction set, one element type. Torch-free: raw
// pointers.
#pragma once

#include <stdint.h>

#include "kernels/element.h"
#include "kernels/gate_kind.h"

namespace osler {

// Rows of `width` values, `…_stride` values apart; what is written is contiguous.
struct GatedForward {
  const void* gate;
  const void* up;
  int64_t gate_stride, up_stride;
  void* y;
  int64_t width;
  GateKind kind;
};

struct GatedBackward {
  const void* grad;  // contiguous
  const void* gate;
  const void* up;
  int64_t gate_stride, up_stride;
  void* grad_gate;
  void* grad_up;
  int64_t width;
  GateKind kind;
};

// Rows [from, to).
struct GatedKernels {
  void (*forward)(const GatedForward&, int64_t from, int64_t to);
  void (*backward)(const GatedBackward&, int64_t from, int64_t to);
};

// By Element.
namespace portable {
extern const GatedKernels kGatedKernels[kElements];
}
namespace avx2 {
extern const GatedKernels kGatedKernels[kElements];
}
namespace avx512 {
extern const GatedKernels kGatedKernels[kElements];
}
namespace avx512_bf16 {
extern const GatedKernels kGatedKernels[kElements];
}
namespace amx {
extern const GatedKernels kGatedKernels[kElements];
}

}  // namespace osler
