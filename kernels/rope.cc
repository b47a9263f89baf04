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

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/cuda/device.h"

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

// The index, a fraction, of the frequency that turns so many times within the original context.
double YarnIndex(double turns, double width, double theta, double original) {
  return width * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

// `periods` are theta^(2i/D).
at::Tensor SlowByYarnRamp(const at::Tensor& periods, const RopeOptions& options,
                          const YarnRamp& ramp) {
  TORCH_CHECK(options.theta > 1 && ramp.fast_turns >= ramp.slow_turns, "a YaRN ramp from ",
              ramp.fast_turns, " to ", ramp.slow_turns, " turns with theta ", options.theta);
  const auto width = static_cast<double>(2 * periods.size(0));
  const auto original = static_cast<double>(ramp.original_positions);
  double low = YarnIndex(ramp.fast_turns, width, options.theta, original);
  double high = YarnIndex(ramp.slow_turns, width, options.theta, original);
  if (ramp.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1);
  if (low == high) high += 0.001;
  const at::Tensor slowed_share =
      at::arange(0, periods.size(0), at::kFloat).sub_(low).div_(high - low).clamp_(0, 1);
  const at::Tensor kept_share = at::add(at::mul(slowed_share, -1), 1);
  const at::Tensor slow = at::reciprocal(at::mul(periods, options.factor));
  return at::add(at::mul(slow, at::add(at::mul(kept_share, -1), 1)),
                 at::mul(at::reciprocal(periods), kept_share));
}

// [D / 2], fp32.
at::Tensor Frequencies(int64_t head_dim, const RopeOptions& options) {
  const at::Tensor periods = at::pow(
      options.theta, at::arange(0, head_dim, 2, at::kFloat).div_(static_cast<double>(head_dim)));
  if (options.yarn) return SlowByYarnRamp(periods, options, *options.yarn);
  at::Tensor frequencies = at::reciprocal(periods);
  if (options.llama3) return SlowByLlama3Ramp(frequencies, options.factor, *options.llama3);
  return options.factor == 1 ? frequencies : frequencies.div_(options.factor);
}

}  // namespace

RopeTables MakeRopeTables(const at::Tensor& positions_T, int64_t head_dim,
                          const RopeOptions& options) {
  TORCH_CHECK(head_dim > 0 && head_dim % 2 == 0, "RoPE needs an even head width, not ", head_dim);
  TORCH_CHECK(positions_T.dim() == 1, "positions must be one-dimensional");
  const at::Tensor angles = at::outer(
      positions_T.to(at::kFloat), ToDevice(Frequencies(head_dim, options), positions_T.device()));
  const at::Tensor both = at::cat({angles, angles}, 1);
  RopeTables tables{at::cos(both), at::sin(both)};
  if (options.yarn) {
    tables.cos_TD.mul_(options.yarn->magnitude);
    tables.sin_TD.mul_(options.yarn->magnitude);
  }
  return tables;
}

}  // namespace osler
