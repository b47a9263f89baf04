// How a context rank's queries meet the keys of other ranks: exact attention forward and backward,
// without autograd. Private to parallel/context_*.
#pragma once

#include <memory>

#include "kernels/interval_attention.h"
#include "kernels/interval_attention_cpu.h"
#include "parallel/communicator.h"
#include "parallel/context_split.h"

namespace osler {

// A rank's rows: its own tokens in ascending order, then rows that see nothing and are no keys.
struct LocalHeads {
  at::Tensor q_THD, k_TKD, v_TKD;  // one dtype, last dimension dense
};

// Immutable. Both calls are collective over the context axis and throw c10::DistError.
class ContextKeys {
 public:
  virtual ~ContextKeys() = default;
  // out in q's dtype.
  virtual AttentionOutput Forward(const LocalHeads& x, const AttentionOptions& options) const = 0;
  // `output` is what Forward gave. Gradients in the inputs' dtype; sums over ranks are fp64 for
  // fp64, else fp32, and rounded once.
  virtual IntervalAttentionGradients Backward(const at::Tensor& grad_out_THD, const LocalHeads& x,
                                              const AttentionOutput& output,
                                              const AttentionOptions& options) const = 0;
};

// One layer kind's mask over the whole run, and the split of the run. `rows`: of this rank, its
// tokens and what fills them up. `comm` must outlive the result.

// One exchange brings each rank the keys and values that its rows see; the backward pass brings
// them again, so that no rank keeps more than its own, and sends their gradients home, where they
// add up in rank order.
std::unique_ptr<ContextKeys> MakeKeyFetch(Communicator& comm, const ContextSplit& split,
                                          const MaskIntervals& mask, int64_t rows,
                                          at::Device device);

// Keys and values travel from rank to rank, a rank's at a time, and the next arrive while attention
// to the present ones is computed; parts are merged in fp32 (fp64 for fp64). Nobody holds more than
// two ranks' keys. The backward pass is a ring too; gradients of keys travel behind them and end at
// home. Liu et al., "Ring Attention with Blockwise Transformers" (arXiv 2310.01889).
std::unique_ptr<ContextKeys> MakeKeyRing(Communicator& comm, const ContextSplit& split,
                                         const MaskIntervals& mask, int64_t rows,
                                         at::Device device);

}  // namespace osler
