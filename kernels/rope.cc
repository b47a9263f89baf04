#include "kernels/rope.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/div.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>

#include <numbers>

namespace osler {
namespace {

// Operation by operation what the reference does in fp32, so that tables are equal to the bit:
// Python's `number / tensor` is the reciprocal times the number.
at::Tensor SlowByLlama3Ramp(const at::Tensor& frequencies, double factor, const Llama3Ramp& ramp) {
  TORCH_CHECK(ramp.high_factor > ramp.low_factor, "a Llama 3 ramp from ", ramp.low_factor, " to ",
              ramp.high_factor);
  const auto original = static_cast<double>(ramp.original_positions);
  const at::Tensor wavelengths = at::mul(at::reciprocal(frequencies), 2 * std::numbers::pi);
  const at::Tensor slow = at::div(frequencies, factor);
  const at::Tensor share =
      at::div(at::sub(at::mul(at::reciprocal(wavelengths), original), ramp.low_factor),
              ramp.high_factor - ramp.low_factor);
  const at::Tensor blend =
      at::add(at::div(at::mul(at::add(at::mul(share, -1), 1), frequencies), factor),
              at::mul(share, frequencies));
  const at::Tensor shortened =
      at::where(at::lt(wavelengths, original / ramp.high_factor), frequencies, blend);
  return at::where(at::gt(wavelengths, original / ramp.low_factor), slow, shortened);
}

// [D / 2], fp32.
at::Tensor Frequencies(int64_t head_dim, const RopeOptions& options) {
  at::Tensor frequencies =
      at::pow(options.theta,
              at::arange(0, head_dim, 2, at::kFloat).div_(static_cast<double>(head_dim)))
          .reciprocal_();
  if (options.llama3) return SlowByLlama3Ramp(frequencies, options.factor, *options.llama3);
  return options.factor == 1 ? frequencies : frequencies.div_(options.factor);
}

}  // namespace

RopeTables MakeRopeTables(const at::Tensor& positions_T, int64_t head_dim,
                          const RopeOptions& options) {
  TORCH_CHECK(head_dim > 0 && head_dim % 2 == 0, "RoPE needs an even head width, not ", head_dim);
  TORCH_CHECK(positions_T.dim() == 1, "positions must be one-dimensional");
  const at::Tensor angles = at::outer(positions_T.to(at::kFloat), Frequencies(head_dim, options));
  const at::Tensor both = at::cat({angles, angles}, 1);
  return {at::cos(both), at::sin(both)};
}

}  // namespace osler
