#include "kernels/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>

namespace osler {

RopeTables MakeRopeTables(const at::Tensor& positions_T, int64_t head_dim,
                          const RopeOptions& options) {
  TORCH_CHECK(head_dim > 0 && head_dim % 2 == 0, "RoPE needs an even head width, not ", head_dim);
  TORCH_CHECK(positions_T.dim() == 1, "positions must be one-dimensional");
  at::Tensor frequencies =
      at::pow(options.theta,
              at::arange(0, head_dim, 2, at::kFloat).div_(static_cast<double>(head_dim)))
          .reciprocal_();
  if (options.factor != 1) frequencies.div_(options.factor);
  const at::Tensor angles = at::outer(positions_T.to(at::kFloat), frequencies);
  const at::Tensor both = at::cat({angles, angles}, 1);
  return {at::cos(both), at::sin(both)};
}

}  // namespace osler
