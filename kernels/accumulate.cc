#include "kernels/accumulate.h"

#include <ATen/Parallel.h>

#include <bit>
#include <cstdint>

namespace osler {

void Accumulate(at::Tensor& sum, const at::Tensor& value) {
  TORCH_CHECK(sum.sizes() == value.sizes(), "a sum of shape ", sum.sizes(),
              " cannot take values of shape ", value.sizes());
  if (sum.scalar_type() != at::kFloat || value.scalar_type() != at::kBFloat16 ||
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

}  // namespace osler
