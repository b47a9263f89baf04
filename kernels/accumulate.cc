#include "kernels/accumulate.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/cuda/rows_cuda.h"

namespace osler {
namespace {

// Of a narrow product on its way into a wide sum.
constexpr int64_t kProductBytes = int64_t{1} << 20;

}  // namespace

void Accumulate(at::Tensor& sum, const at::Tensor& value) {
  TORCH_CHECK(sum.sizes() == value.sizes(), "a sum of shape ", sum.sizes(),
              " cannot take values of shape ", value.sizes());
  if (!sum.is_cpu() || sum.scalar_type() != at::kFloat || value.scalar_type() != at::kBFloat16 ||
      !sum.is_contiguous() || !value.is_contiguous()) {
    sum.add_(value);
    return;
  }
  constexpr int64_t kGrain = 1 << 15;
  auto* to = sum.mutable_data_ptr<float>();
  const auto* from = reinterpret_cast<const uint16_t*>(value.const_data_ptr());
  at::parallel_for(0, sum.numel(), kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      to[i] += std::bit_cast<float>(static_cast<uint32_t>(from[i]) << 16);
  });
}

void AccumulateProduct(at::Tensor& sum_EF, const at::Tensor& a_TE, const at::Tensor& b_TF) {
  if (sum_EF.scalar_type() == b_TF.scalar_type()) {
    sum_EF.addmm_(a_TE.t(), b_TF);
    return;
  }
  if (!sum_EF.is_cpu()) {
    at::addmm_out(sum_EF, sum_EF, a_TE.t(), b_TF, sum_EF.scalar_type());
    return;
  }
  const int64_t rows = sum_EF.size(0), width = b_TF.size(1);
  const int64_t row_bytes = std::max(static_cast<int64_t>(b_TF.element_size()) * width, int64_t{1});
  const int64_t step = std::max<int64_t>(kProductBytes / row_bytes, 1);
  at::parallel_for(0, (rows + step - 1) / step, 1, [&](int64_t first, int64_t last) {
    const at::NoGradGuard no_grad;  // the guard of the calling thread does not reach here
    const at::Tensor product = at::empty({std::min(step, rows), width}, b_TF.options());
    for (int64_t e = first * step; e < std::min(last * step, rows); e += step) {
      const int64_t count = std::min(step, rows - e);
      at::Tensor part = product.narrow(0, 0, count);
      at::mm_out(part, a_TE.narrow(1, e, count).t(), b_TF);
      at::Tensor slice_EF = sum_EF.narrow(0, e, count);
      Accumulate(slice_EF, part);
    }
  });
}

void AddRows(at::Tensor& sum_VD, const at::Tensor& ids_T, const at::Tensor& rows_TD) {
  if (sum_VD.is_cpu()) {
    sum_VD.index_add_(0, ids_T, rows_TD.to(sum_VD.scalar_type()));
  } else {
    AddRowsCuda(sum_VD, ids_T, rows_TD);
  }
}

}  // namespace osler
