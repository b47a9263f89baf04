// Softmax and cross-entropy of rows of logits for one instruction set, one element type.
// Torch-free: raw pointers.
#pragma once

#include <stdint.h>

#include "kernels/element.h"

namespace osler {

struct CrossEntropyRows {
  void* logits;  // [rows, width], contiguous
  int64_t width;
  const int64_t* targets;  // [rows], in the whole vocabulary; negative: none
  int64_t begin;           // the first column's place in the whole vocabulary
  double soft_cap;         // z becomes soft_cap · tanh(z / soft_cap); 0: it stays
  // [rows] in the sums' type: the largest z, Σ e^(z − max), and the target's z (0 when it stands in
  // another slice).
  void* max;
  void* sum;
  void* target;
  double gradient_scale;
};

// Rows [from, to).
struct CrossEntropyKernels {
  // Writes max, sum and target from one reading of the logits.
  void (*terms)(const CrossEntropyRows&, int64_t from, int64_t to);
  // Puts gradient_scale · (softmax − one-hot), through the cap, in the logits' place, given the
  // whole vocabulary's max and sum. Zero for rows without a target.
  void (*gradient)(const CrossEntropyRows&, int64_t from, int64_t to);
};

// By Element.
namespace portable {
extern const CrossEntropyKernels kCrossEntropyKernels[kElements];
}
namespace avx2 {
extern const CrossEntropyKernels kCrossEntropyKernels[kElements];
}
namespace avx512 {
extern const CrossEntropyKernels kCrossEntropyKernels[kElements];
}
namespace avx512_bf16 {
extern const CrossEntropyKernels kCrossEntropyKernels[kElements];
}
namespace amx {
extern const CrossEntropyKernels kCrossEntropyKernels[kElements];
}

}  // namespace osler
