// Attention of one micro-batch whose tokens are split over the ranks of the context axis: the same
// computation as IntervalAttention over the whole run, forward and backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/interval_attention.h"
#include "parallel/communicator.h"
#include "parallel/context_split.h"

namespace osler {

class ContextKeys;

// How keys reach the queries of layers without a window. Layers with one always fetch: a window's
// keys are at most window − 1 tokens before each range of a rank.
enum class ContextMethod {
  kAuto,    // gather while no rank's rows see more than kMostGatheredKeys keys, else ring
  kGather,  // one exchange of all keys that a rank's rows see
  kRing,    // a rank's keys at a time, with transfers behind the computation
};
inline constexpr int64_t kMostGatheredKeys = 65536;

// Built once a micro-batch, shared by its layers. Immutable. A call is collective over the context
// axis, in the layers' order; so is its backward, which runs in the thread that asks for gradients.
class ContextAttention {
 public:
  struct Kind {          // of layers
    MaskIntervals mask;  // over the whole run, one row a token
    std::optional<int64_t> window;
  };
  // `rows` of this rank: its tokens in ascending order, then rows that see nothing. `device` is
  // where attention is computed and whose tensors `comm`, which is not owned, carries.
  ContextAttention(Communicator& comm, const ContextSplit& split, const std::vector<Kind>& kinds,
                   int64_t rows, ContextMethod method, at::Device device = at::kCPU);
  ~ContextAttention();

  // As IntervalAttention over the whole run's keys: q_THD [rows, H, D], k and v [rows, K, D] of
  // this rank's rows → [rows, H, D]; zeros for rows that see nothing. `kind` indexes the
  // constructor's.
  at::Tensor Attend(size_t kind, const at::Tensor& q_THD, const at::Tensor& k_TKD,
                    const at::Tensor& v_TKD, const AttentionOptions& options) const;

 private:
  std::vector<std::shared_ptr<const ContextKeys>> kinds_;
};

}  // namespace osler
