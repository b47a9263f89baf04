// AdamW (Loshchilov & Hutter 2019) over a parameter store, with the arithmetic of
// torch.optim.AdamW.
//
// Every trainable parameter is decayed, as torch.optim.AdamW does by default. bf16 parameters keep
// an fp32 master copy; moments are fp32 (fp64 for fp64 parameters). Not thread-safe; the store must
// outlive it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/parameter_store.h"

namespace osler {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

class AdamW {
 public:
  // State of one trainable slot. `master` is the slot's own tensor unless the parameter is bf16.
  struct Moments {
    int64_t slot = 0;
    at::Tensor master, exp_avg, exp_avg_sq;
  };

  AdamW(ParameterStore& store, const AdamWOptions& options);
  // One update, number `step` from 1, with rate `lr`, of gradients multiplied by `gradient_factor`
  // (clipping).
  void Step(int64_t step, double lr, double gradient_factor);
  std::vector<Moments>& moments() { return moments_; }
  // Refreshes bf16 parameters from their masters after the moments were loaded.
  void PublishMasters();

 private:
  ParameterStore& store_;
  AdamWOptions options_;
  std::vector<Moments> moments_;
};

// The 2-norm over all gradients, summed in fp64. A slot without gradient counts as zero.
double GlobalGradientNorm(const ParameterStore& store);

// torch.nn.utils.clip_grad_norm_'s factor: min(1, clip / (norm + 1e-6)); 1 when clip is 0.
double ClipFactor(double norm, double clip);

}  // namespace osler
