#include "kernels/cuda/adamw_cuda.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace osler {
namespace {

bool Dense(const at::Tensor& x) { return HasElement(x) && x.is_contiguous(); }

}  // namespace

bool AdamWCuda(const std::vector<AdamWItem>& items, const AdamWNumbers& n) {
  std::vector<cuda::AdamWTensor> tensors;
  for (const AdamWItem& one : items) {
    const bool known = one.master.scalar_type() == at::kFloat && one.master.is_contiguous() &&
                       Dense(one.exp_avg) && Dense(one.exp_avg_sq) && Dense(one.gradient) &&
                       (!one.parameter.defined() || Dense(one.parameter));
    if (!known) return false;
    tensors.push_back({.master = one.master.mutable_data_ptr<float>(),
                       .parameter = MutableOrNull(one.parameter),
                       .exp_avg = one.exp_avg.mutable_data_ptr(),
                       .exp_avg_sq = one.exp_avg_sq.mutable_data_ptr(),
                       .gradient = one.gradient.const_data_ptr(),
                       .count = one.master.numel(),
                       .lr = n.lr,
                       .weight_decay = n.weight_decay});
  }
  if (items.empty()) return true;
  const AdamWItem& first = items.front();
  const auto step = static_cast<double>(n.step);
  const cuda::AdamWStep arguments{
      .tensors = tensors.data(),
      .count = static_cast<int64_t>(tensors.size()),
      .parameter_element = CudaElement(first.parameter.defined() ? first.parameter : first.master),
      .gradient_element = CudaElement(first.gradient),
      .moment_element = CudaElement(first.exp_avg),
      .beta1 = n.beta1,
      .beta2 = n.beta2,
      .eps = n.eps,
      .bias_correction1 = 1 - std::pow(n.beta1, step),
      .bias_correction2 = 1 - std::pow(n.beta2, step),
      .gradient_factor = n.gradient_factor,
      .device_factor = nullptr};
  return Took(osler_adamw(&arguments, CudaStreamOf(first.master)), "AdamW");
}

at::Tensor SquaresSumCuda(const std::vector<at::Tensor>& tensors) {
  std::vector<cuda::NormTensor> list;
  for (const at::Tensor& x : tensors) {
    if (!Dense(x) || x.scalar_type() != tensors.front().scalar_type()) return {};
    list.push_back({x.const_data_ptr(), x.numel()});
  }
  if (list.empty()) return {};
  const auto numbers = tensors.front().options().dtype(at::kDouble);
  const auto count = static_cast<int64_t>(list.size());
  const at::Tensor sum = at::empty({1}, numbers),
                   workspace = at::empty({osler_squares_sum_workspace(count)}, numbers);
  const cuda::SquaresSum arguments{.tensors = list.data(),
                                   .count = count,
                                   .element = CudaElement(tensors.front()),
                                   .sum = sum.mutable_data_ptr<double>(),
                                   .workspace = workspace.mutable_data_ptr<double>()};
  return Took(osler_squares_sum(&arguments, CudaStreamOf(sum)), "the norm") ? sum : at::Tensor();
}

}  // namespace osler
