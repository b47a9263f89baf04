// AdamW and the norm of gradients over many CUDA tensors at once (adamw.h), from torch tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace osler {

struct AdamWItem {
  at::Tensor master, exp_avg, exp_avg_sq;  // fp32 (the moments: or both bf16)
  at::Tensor gradient;
  at::Tensor parameter;  // gets the new master, rounded; undefined: it is the master
};

struct AdamWNumbers {
  double beta1, beta2, eps, lr, weight_decay;
  int64_t step;            // from 1
  double gradient_factor;  // gradients are multiplied by it
};

// One update of all items, of the same types. False, and nothing done: there is no kernel for these
// types.
bool AdamWCuda(const std::vector<AdamWItem>& items, const AdamWNumbers& numbers);

// Σ x² over all tensors, which share a type, fp64 [1] on their device; undefined: no kernel.
at::Tensor SquaresSumCuda(const std::vector<at::Tensor>& tensors);

}  // namespace osler
