// Helpers of the kernel tests: leaves, gradients, and differences in terms of the largest value.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>
#include <vector>

namespace osler::testing {

inline at::Tensor RandomLeaf(std::vector<int64_t> shape, at::ScalarType dtype = at::kDouble) {
  return at::randn(shape, at::kDouble).to(dtype).requires_grad_(true);
}

// The same values as an fp64 leaf of their own.
inline at::Tensor WideLeaf(const at::Tensor& x) {
  return x.detach().to(at::kDouble).clone().requires_grad_(true);
}

// d⟨output, weights⟩ / d(each leaf).
inline std::vector<at::Tensor> Gradients(const at::Tensor& output, const at::Tensor& weights,
                                         const std::vector<at::Tensor>& leaves) {
  return torch::autograd::grad({output}, leaves, {weights.to(output.scalar_type())});
}

// max |a − b| / max(1, max |b|) in fp64.
inline double Difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0 && b.numel() == 0) return 0;
  const at::Tensor wide = b.detach().to(at::kDouble);
  const double largest = wide.abs().max().item<double>();
  return (a.detach().to(at::kDouble) - wide).abs().max().item<double>() / std::max(1.0, largest);
}

// ‖a − b‖ / max(1, ‖b‖) in fp64.
inline double RelativeNorm(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor wide = b.detach().to(at::kDouble);
  return (a.detach().to(at::kDouble) - wide).norm().item<double>() /
         std::max(1.0, wide.norm().item<double>());
}

inline bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return at::equal(a.detach(), b.detach());
}

}  // namespace osler::testing
