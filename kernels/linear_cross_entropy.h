// Output projection and cross-entropy in one pass over chunks of tokens: the [T, V] logits never
// exist whole.
//
// The gradient is made in the same pass, while a chunk's logits are at hand and in their place, so
// nothing is kept for a backward pass. Logits are rounded to the weight's dtype, as the reference
// implementation's are; softmax and sums are fp32 (fp64 for fp64).
//
// Targets are CPU tensors, wherever hidden and weight are: which rows count is known without
// waiting for a device.
//
// The second half of the file is the same for one slice of the vocabulary, for a head that is split
// over devices; it communicates nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace osler {

struct LinearCrossEntropyOptions {
  // A chunk's logits stay within both limits (but a chunk has at least one token).
  int64_t chunk_tokens = 512;
  int64_t chunk_bytes = int64_t{256} << 20;
  // Of the returned and accumulated gradients: 1 / (targets in the global batch).
  double gradient_scale = 1;
  // A logit z becomes soft_cap · tanh(z / soft_cap) before the softmax (Gemma 2); 0: it stays.
  double soft_cap = 0;
};

// How many of `rows` rows a chunk of logits with that weight has: within both limits, chunks of
// about equal size; of bf16 a multiple of 64, which may be above them.
int64_t ChunkRows(int64_t rows, const at::Tensor& weight_VD,
                  const LinearCrossEntropyOptions& options);

// Forward only: fp32 (fp64 for fp64 input) log-probability of targets_T under softmax(hidden_TD
// weight_VDᵀ), [T]. Rows with a negative target give 0.
at::Tensor TargetLogProbs(const at::Tensor& hidden_TD, const at::Tensor& weight_VD,
                          const at::Tensor& targets_T, int64_t chunk_tokens, double soft_cap = 0);

struct LinearCrossEntropyResult {
  double loss_sum = 0;             // Σ −log p(target) over rows with target ≥ 0
  at::Tensor loss_on_device = {};  // fp64 []: in place of loss_sum where hidden is not on the CPU,
                                   // since reading it waits for the device
  int64_t count = 0;               // such rows
  at::Tensor grad_hidden_TD;  // gradient_scale · ∂loss_sum/∂hidden, hidden's dtype; rows without
                              // target are zero
};

// targets_T is int64 with −100 (any negative value) for "no target"; such rows cost nothing. When
// grad_weight_VD is defined, gradient_scale · ∂loss_sum/∂weight is added to it in its own dtype;
// undefined: the head is frozen and that product is skipped. The same threads give the same bits.
LinearCrossEntropyResult LinearCrossEntropy(const at::Tensor& hidden_TD,
                                            const at::Tensor& weight_VD,
                                            const at::Tensor& targets_T, at::Tensor grad_weight_VD,
                                            const LinearCrossEntropyOptions& options);

// ---- One slice of the vocabulary. For each chunk of rows, on every holder of a slice:
//   SliceLogits mine = SliceForward(hidden, slice, targets, options);
//   SoftmaxTerms whole = MergeSoftmaxTerms(all holders' mine.terms);      // three numbers a row to
//   exchange loss += SumLoss(whole, targets); grad_hidden = SliceBackward(std::move(mine), whole,
//   hidden, slice, targets, grad_weight, options);  // to be summed

struct VocabularySlice {
  at::Tensor weight_VD;  // rows [begin, begin + V) of the whole head
  int64_t begin = 0;
};

// Of each row's logits: the largest, Σ e^(z − max), and the target's logit, 0 when it stands in
// another slice.
struct SoftmaxTerms {
  at::Tensor max_T, sum_T, target_T;  // fp32 (fp64 for fp64)
};
// In the order given; the terms of slices that make up the vocabulary give those of the whole.
SoftmaxTerms MergeSoftmaxTerms(const std::vector<SoftmaxTerms>& slices);

// Σ −log p(target) over rows with target ≥ 0, from the whole vocabulary's terms; all on the CPU.
double SumLoss(const SoftmaxTerms& whole, const at::Tensor& targets_T);
// Adds it to the result's loss, on whichever device they are.
void AddLoss(const SoftmaxTerms& whole, const at::Tensor& targets_T,
             LinearCrossEntropyResult& result);

struct SliceLogits {
  at::Tensor logits_TV;  // T · V values: the caller chunks the rows
  SoftmaxTerms terms;
};
// targets_T are ids of the whole vocabulary, on the device of hidden.
SliceLogits SliceForward(const at::Tensor& hidden_TD, const VocabularySlice& slice,
                         const at::Tensor& targets_T, const LinearCrossEntropyOptions& options);

// The slice's share of ∂/∂hidden; its weight's gradient is added to grad_weight_VD where defined.
// The logits are overwritten. Rows without a target give zero.
at::Tensor SliceBackward(SliceLogits mine, const SoftmaxTerms& whole, const at::Tensor& hidden_TD,
                         const VocabularySlice& slice, const at::Tensor& targets_T,
                         at::Tensor grad_weight_VD, const LinearCrossEntropyOptions& options);

}  // namespace osler
