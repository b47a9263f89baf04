#include <ATen/ops/arange.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/interval_attention_cuda.h"
#include "kernels/interval_attention_aten.h"

namespace osler {
namespace {

constexpr int64_t kTokens = 387;   // no multiple of any tile
constexpr int64_t kBlindRows = 5;  // that see nothing, at the end
constexpr int64_t kShortWindow = 96;

// Values in (−1, 1) that no two places share, without a generator.
at::Tensor Values(std::vector<int64_t> sizes, double phase, const AttentionShape& shape) {
  const int64_t count = sizes[0] * sizes[1] * sizes[2];
  const auto fp64 = at::TensorOptions().dtype(at::kDouble).device(shape.device);
  const at::Tensor i = at::arange(count, fp64);
  return i.mul(i)
      .mul_(0.000137)
      .add_(i.mul(1.61803))
      .add_(phase)
      .sin_()
      .to(shape.dtype)
      .view(sizes);
}

MaskIntervals Mask(const AttentionShape& shape) {
  const std::vector<int32_t> starts = {0, 1, 130, 131, 258};
  std::optional<int64_t> window;
  if (shape.window.has_value()) window = std::min(*shape.window, kShortWindow);
  const MaskIntervals mask = CausalDocumentIntervals(starts, kTokens, window);
  const auto last = [](const at::Tensor& x) {
    return x.narrow(0, kTokens - kBlindRows, kBlindRows);
  };
  last(mask.lo_T).copy_(last(mask.hi_T));
  return {ToDevice(mask.lo_T, shape.device), ToDevice(mask.hi_T, shape.device)};
}

// The error of `x` against `y`, as a share of y's norm; what is not finite in both is equal.
double ErrorOf(const at::Tensor& x, const at::Tensor& y) {
  const auto wide = [](const at::Tensor& one) {
    return one.to(at::kDouble).nan_to_num(/*nan=*/1e30, /*posinf=*/1e6, /*neginf=*/-1e6).flatten();
  };
  const auto norm = [](const at::Tensor& one) {
    return at::linalg_vector_norm(one, 2).item<double>();
  };
  return norm(at::sub(wide(x), wide(y))) / std::max(norm(wide(y)), 1e-30);
}

}  // namespace

void TestAttention(const AttentionShape& shape) {
  if (shape.device.is_cpu()) return;
  const IntervalAttentionInput input{Values({kTokens, shape.heads, shape.width}, 0.1, shape),
                                     Values({kTokens, shape.key_heads, shape.width}, 0.2, shape),
                                     Values({kTokens, shape.key_heads, shape.width}, 0.3, shape),
                                     Mask(shape),
                                     {.scale = 2 / std::sqrt(static_cast<double>(shape.width))}};
  const AttentionOutput grad{Values(input.q_THD.sizes().vec(), 0.4, shape), {}};
  const at::ScalarType sums = shape.dtype == at::kDouble ? at::kDouble : at::kFloat;
  const AttentionOutput out = IntervalAttentionForwardCuda(input, shape.dtype),
                        want = IntervalAttentionForwardAten(input, sums, AtenProducts::kWide);
  const IntervalAttentionGradients found =
                                       IntervalAttentionBackwardCuda(grad, input, out, shape.dtype),
                                   right = IntervalAttentionBackwardAten(grad, input, want, sums,
                                                                         AtenProducts::kWide);
  const double limit = shape.dtype == at::kBFloat16 ? 2e-2 : 1e-5;
  std::string wrong;
  const auto compare = [&](const char* name, const at::Tensor& x, const at::Tensor& y) {
    const double error = ErrorOf(x, y);
    if (!(error < limit)) absl::StrAppend(&wrong, wrong.empty() ? "" : ", ", name, " by ", error);
  };
  compare("out", out.out_THD, want.out_THD);
  compare("lse", out.lse_TH, want.lse_TH);
  compare("the gradient of q", found.q_THD, right.q_THD);
  compare("of k", found.k_SHD, right.k_SHD);
  compare("of v", found.v_SHD, right.v_SHD);
  TORCH_CHECK(wrong.empty(), "attention of ", shape.heads, " heads on ", shape.key_heads,
              " of width ", shape.width, " disagrees with the reference on this GPU: ", wrong,
              "; OSLER_ATTENTION=aten computes without Osler's kernels");
}

}  // namespace osler
