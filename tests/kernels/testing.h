// Helpers of the kernel tests: leaves, gradients, and differences in terms of the largest value.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <utility>
#include <vector>

#include "kernels/cpu_isa.h"

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

// Every instruction set this machine has.
inline std::vector<CpuIsa> IsaLevels() {
  std::vector<CpuIsa> levels;
  for (int i = 0; i <= static_cast<int>(BestCpuIsa()); ++i)
    levels.push_back(static_cast<CpuIsa>(i));
  return levels;
}

// body under 1, 2 and 3 threads gives tensors of the same bits.
inline void ExpectSameBitsForThreads(const std::function<std::vector<at::Tensor>()>& body) {
  const int before = at::get_num_threads();
  std::vector<at::Tensor> first;
  for (const int threads : {1, 2, 3, 1}) {
    at::set_num_threads(threads);
    const std::vector<at::Tensor> now = body();
    if (first.empty()) first = now;
    for (size_t i = 0; i < first.size(); ++i)
      EXPECT_TRUE(SameBits(first[i], now[i])) << i << " with " << threads << " threads";
  }
  at::set_num_threads(before);
}

// Central differences of f itself against its backward, for every element of fp64 leaves.
inline void ExpectGradientsOfDifferences(
    const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f,
    const std::vector<at::Tensor>& leaves, double tolerance = 1e-8) {
  const at::Tensor out = f(leaves);
  const at::Tensor weights = at::randn(out.sizes(), out.options());
  const std::vector<at::Tensor> grads = Gradients(out, weights, leaves);
  std::vector<at::Tensor> values;
  for (const at::Tensor& leaf : leaves) values.push_back(leaf.detach().clone());
  const auto loss = [&] { return (f(values) * weights).sum().item<double>(); };
  for (size_t i = 0; i < leaves.size(); ++i) {
    double* value = values[i].data_ptr<double>();
    for (int64_t j = 0; j < values[i].numel(); ++j) {
      const double kept = value[j];
      value[j] = kept + 1e-5;
      const double up = loss();
      value[j] = kept - 1e-5;
      const double down = loss();
      value[j] = kept;
      EXPECT_NEAR(grads[i].flatten()[j].item<double>(), (up - down) / 2e-5, tolerance)
          << "input " << i << " at " << j;
    }
  }
}

}  // namespace osler::testing
