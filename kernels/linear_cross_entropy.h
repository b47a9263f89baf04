// Output projection and cross-entropy in one pass over chunks of tokens: the [T, V] logits never
// exist whole.
//
// The gradient is made in the same pass, while a chunk's logits are at hand, so nothing is kept for
// a backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace osler {

struct LinearCrossEntropyOptions {
  int64_t chunk_tokens = 512;  // an upper limit: a chunk's logits also stay within 128 MiB
  double gradient_scale =
      1;  // of the returned and accumulated gradients: 1 / (targets in the global batch)
};

// Forward only: fp32 (fp64 for fp64 input) log-probability of targets_T under softmax(hidden_TD
// weight_VDᵀ), [T]. Rows with a negative target give 0.
at::Tensor TargetLogProbs(const at::Tensor& hidden_TD, const at::Tensor& weight_VD,
                          const at::Tensor& targets_T, int64_t chunk_tokens);

struct LinearCrossEntropyResult {
  double loss_sum = 0;        // Σ −log p(target) over rows with target ≥ 0
  int64_t count = 0;          // such rows
  at::Tensor grad_hidden_TD;  // gradient_scale · ∂loss_sum/∂hidden, hidden's dtype; rows without
                              // target are zero
};

// targets_T is int64 with −100 (any negative value) for "no target". When grad_weight_VD is
// defined, gradient_scale · ∂loss_sum/∂weight is added to it in its own dtype; undefined: the head
// is frozen and that product is skipped. Softmax and sums are fp32 (fp64 for fp64). Deterministic.
LinearCrossEntropyResult LinearCrossEntropy(const at::Tensor& hidden_TD,
                                            const at::Tensor& weight_VD,
                                            const at::Tensor& targets_T, at::Tensor grad_weight_VD,
                                            const LinearCrossEntropyOptions& options);

}  // namespace osler
