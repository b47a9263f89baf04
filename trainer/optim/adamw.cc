#include "trainer/optim/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace osler {

AdamW::AdamW(ParameterStore& store, const AdamWOptions& options)
    : store_(store), options_(options) {
  for (size_t i = 0; i < store.slots().size(); ++i) {
    const ParameterSlot& slot = store.slots()[i];
    if (!slot.trainable) continue;
    Moments one;
    one.slot = static_cast<int64_t>(i);
    one.master = slot.local.scalar_type() == at::kBFloat16 ? slot.local.to(at::kFloat) : slot.local;
    one.exp_avg = at::zeros_like(one.master);
    one.exp_avg_sq = at::zeros_like(one.master);
    moments_.push_back(std::move(one));
  }
}

void AdamW::Step(int64_t step, double lr, double gradient_factor) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> masters, gradients, averages, squares, steps;
  for (Moments& one : moments_) {
    masters.push_back(one.master);
    gradients.push_back(store_.GradientOf(one.slot));
    averages.push_back(one.exp_avg);
    squares.push_back(one.exp_avg_sq);
    steps.push_back(at::full({}, static_cast<double>(step), at::kFloat));
  }
  if (gradient_factor != 1) {
    for (at::Tensor& gradient : gradients) gradient.mul_(gradient_factor);
  }
  at::_fused_adamw_(masters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, steps, lr,
                    options_.beta1, options_.beta2, options_.weight_decay, options_.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
  PublishMasters();
}

void AdamW::PublishMasters() {
  const at::NoGradGuard no_grad;
  for (Moments& one : moments_) {
    at::Tensor& local = store_.slot(one.slot).local;
    if (!local.is_same(one.master)) local.copy_(one.master);
  }
}

double GlobalGradientNorm(const ParameterStore& store) {
  double squares = 0;
  for (const ParameterSlot& slot : store.slots()) {
    if (!slot.gradient.defined()) continue;
    const double norm =
        at::linalg_vector_norm(slot.gradient, 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

double ClipFactor(double norm, double clip) {
  return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1;
}

}  // namespace osler
