#include "kernels/cpu_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace osler {
namespace {

constexpr int64_t kGrainValues = 32768;  // a thread's share takes longer than waking it
constexpr int64_t kMaxBlocks = 128, kMinBlockRows = 16;

template <typename A>
void AddBlocks(const at::Tensor& sums_BD) {
  A* total = sums_BD.mutable_data_ptr<A>();
  const int64_t width = sums_BD.size(1);
  for (int64_t b = 1; b < sums_BD.size(0); ++b) {
    const A* block = total + b * width;
    for (int64_t d = 0; d < width; ++d) total[d] += block[d];
  }
}

}  // namespace

Element ElementOf(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return Element::kFloat;
    case at::kDouble: return Element::kDouble;
    case at::kBFloat16: return Element::kBFloat16;
    default: TORCH_CHECK(false, "this kernel takes fp32, fp64 and bf16, not ", x.scalar_type());
  }
}

at::ScalarType SumTypeOf(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor Gain(const at::Tensor& weight_D, NormStyle style, const at::Tensor& x) {
  const at::Tensor weight = weight_D.to(SumTypeOf(x)).contiguous();
  return style == NormStyle::kGemma ? at::add(weight, 1) : weight;
}

void ForRows(int64_t rows, int64_t width, c10::function_ref<void(int64_t, int64_t)> body) {
  const int64_t grain = std::max<int64_t>(kGrainValues / std::max<int64_t>(width, 1), 1);
  at::parallel_for(0, rows, grain, [&](int64_t from, int64_t to) { body(from, to); });
}

at::Tensor SumOverRows(int64_t rows, int64_t width, const at::Tensor& x,
                       c10::function_ref<void(void*, int64_t, int64_t)> body) {
  const int64_t step = std::max(kMinBlockRows, (rows + kMaxBlocks - 1) / kMaxBlocks);
  const int64_t blocks = std::max<int64_t>((rows + step - 1) / step, 1);
  at::Tensor sums_BD = at::zeros({blocks, width}, x.options().dtype(SumTypeOf(x)));
  auto* sums = static_cast<char*>(sums_BD.mutable_data_ptr());
  const auto sum_bytes = width * static_cast<int64_t>(sums_BD.element_size());
  at::parallel_for(0, rows == 0 ? 0 : blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      body(sums + b * sum_bytes, b * step, std::min(rows, (b + 1) * step));
    }
  });
  if (x.scalar_type() == at::kDouble) {
    AddBlocks<double>(sums_BD);
  } else {
    AddBlocks<float>(sums_BD);
  }
  return sums_BD.select(0, 0);
}

}  // namespace osler
