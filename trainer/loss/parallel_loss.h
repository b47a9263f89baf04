// The head and its loss when a tensor axis cuts the vocabulary: each rank has the hidden rows
// [T / ranks] that are its own and the logits of its own tokens.
//
// A chunk of rows at a time is gathered, its logits' maxima, sums and targets are exchanged (three
// numbers a row), and its gradient is summed and dealt out again, while the next chunk's rows are
// on their way. Only rows with a target travel and cost products; nothing of the size of all rows
// times anything exists. With one rank this is LinearCrossEntropy itself.
//
// `tensor` may be nullptr: one rank. All ranks call with the same targets and options. Throws
// c10::Error and c10::DistError.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/linear_cross_entropy.h"
#include "parallel/communicator.h"

namespace osler {

// hidden_RD: this rank's rows [T / ranks, D]; head_VD: its rows [V / ranks, D] of the head, in rank
// order; targets_T: all rows' int64 ids of the whole vocabulary, negative for none; grad_head_VD:
// as in LinearCrossEntropy, this slice's. Loss sum and count are those of all rows, the same on
// every rank; grad_hidden_TD is that of hidden_RD. The chunk limits are for all ranks' rows and
// this slice's logits.
LinearCrossEntropyResult ParallelLoss(Communicator* tensor, const at::Tensor& hidden_RD,
                                      const at::Tensor& head_VD, const at::Tensor& targets_T,
                                      at::Tensor grad_head_VD,
                                      const LinearCrossEntropyOptions& options);

// TargetLogProbs of all rows, [T], the same on every rank.
at::Tensor ParallelTargetLogProbs(Communicator* tensor, const at::Tensor& hidden_RD,
                                  const at::Tensor& head_VD, const at::Tensor& targets_T,
                                  int64_t chunk_tokens, double soft_cap = 0);

}  // namespace osler
