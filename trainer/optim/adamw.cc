#include "trainer/optim/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/cuda/adamw_cuda.h"

namespace osler {

namespace {

void Update(const std::vector<AdamWItem>& items, const AdamWNumbers& numbers) {
  std::vector<at::Tensor> masters, gradients, averages, squares, steps;
  const at::Tensor& first = items.front().master;
  // One for all: it is read, not counted up.
  const at::Tensor step =
      at::full({}, static_cast<double>(numbers.step), first.options().dtype(at::kFloat));
  for (const AdamWItem& one : items) {
    masters.push_back(one.master);
    gradients.push_back(one.gradient);
    averages.push_back(one.exp_avg);
    squares.push_back(one.exp_avg_sq);
    steps.push_back(step);
  }
  if (numbers.gradient_factor != 1) at::_foreach_mul_(gradients, numbers.gradient_factor);
  at::_fused_adamw_(masters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, steps,
                    numbers.lr, numbers.beta1, numbers.beta2, numbers.weight_decay, numbers.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}

}  // namespace

AdamW::AdamW(ParameterStore& store, const AdamWOptions& options, std::vector<ParameterGroup> groups)
    : store_(store), options_(options), groups_(std::move(groups)) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (const int64_t slot : groups_[g].slots) {
      if (!store.slot(slot).present) continue;
      const at::Tensor& piece = store.slot(slot).piece;
      Moments one;
      one.slot = slot;
      one.group = g;
      one.master = piece.scalar_type() == at::kBFloat16 ? piece.to(at::kFloat) : piece;
      if (options_.state == StatePlace::kCpu) {
        one.master = one.master.to(at::kCPU, one.master.scalar_type(), /*non_blocking=*/false,
                                   /*copy=*/true);
      }
      one.exp_avg = at::zeros_like(one.master);
      one.exp_avg_sq = at::zeros_like(one.master);
      moments_.push_back(std::move(one));
    }
  }
  std::sort(moments_.begin(), moments_.end(),
            [](const Moments& a, const Moments& b) { return a.slot < b.slot; });
}

void AdamW::Step(int64_t step, double lr, double gradient_factor) {
  const at::NoGradGuard no_grad;
  for (size_t g = 0; g < groups_.size(); ++g) StepGroup(g, step, lr, gradient_factor);
}

void AdamW::StepGroup(size_t group, int64_t step, double lr, double gradient_factor) {
  std::vector<AdamWItem> items;
  for (Moments& one : moments_) {
    if (one.group != group) continue;
    const at::Tensor gradient = store_.GradientPieceOf(one.slot).to(one.master.device());
    const at::Tensor& piece = store_.slot(one.slot).piece;
    const bool beside = !piece.is_same(one.master) && piece.device() == one.master.device();
    items.push_back(
        {one.master, one.exp_avg, one.exp_avg_sq, gradient, beside ? piece : at::Tensor()});
  }
  if (items.empty()) return;
  const AdamWNumbers numbers{.beta1 = options_.beta1,
                             .beta2 = options_.beta2,
                             .eps = options_.eps,
                             .lr = lr * groups_[group].lr_scale,
                             .weight_decay = groups_[group].weight_decay,
                             .step = step,
                             .gradient_factor = gradient_factor};
  if (!items.front().master.is_cpu() && AdamWCuda(items, numbers)) return;
  Update(items, numbers);
  for (const Moments& one : moments_) {
    if (one.group == group) Publish(one);
  }
}

void AdamW::Publish(const Moments& one) {
  at::Tensor& piece = store_.slot(one.slot).piece;
  if (!piece.is_same(one.master)) piece.copy_(one.master);
}

bool AdamW::HasWideMaster(const Moments& one) const {
  return store_.slot(one.slot).piece.scalar_type() != one.master.scalar_type();
}

void AdamW::StateLoaded() {
  const at::NoGradGuard no_grad;
  for (Moments& one : moments_) {
    if (!HasWideMaster(one)) one.master.copy_(store_.slot(one.slot).piece);
    Publish(one);
  }
}

double ClipFactor(double norm, double clip) {
  return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1;
}

}  // namespace osler
