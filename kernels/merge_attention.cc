#include "kernels/merge_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cuda/rows_cuda.h"

namespace osler {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values a thread should have at least

template <class Sum>
void MergeRows(const AttentionOutput& part, const AttentionOutput& into) {
  const int64_t width = into.out_THD.size(2);
  const Sum nothing = -std::numeric_limits<Sum>::infinity();
  const Sum* const part_out = part.out_THD.const_data_ptr<Sum>();
  const Sum* const part_lse = part.lse_TH.const_data_ptr<Sum>();
  Sum* const out = into.out_THD.mutable_data_ptr<Sum>();
  Sum* const lse = into.lse_TH.mutable_data_ptr<Sum>();
  at::parallel_for(0, into.lse_TH.numel(), std::max<int64_t>(1, kGrain / width),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       if (part_lse[i] == nothing) continue;
                       const Sum top = std::max(lse[i], part_lse[i]);
                       const Sum mine = std::exp(lse[i] - top), other = std::exp(part_lse[i] - top);
                       const Sum sum = mine + other;
                       const Sum keep = mine / sum, take = other / sum;
                       for (int64_t d = i * width; d < (i + 1) * width; ++d)
                         out[d] = keep * out[d] + take * part_out[d];
                       lse[i] = top + std::log(sum);
                     }
                   });
}

}  // namespace

void MergeAttention(const AttentionOutput& part, const AttentionOutput& into) {
  const at::ScalarType dtype = into.out_THD.scalar_type();
  TORCH_CHECK((dtype == at::kFloat || dtype == at::kDouble) && dtype == into.lse_TH.scalar_type() &&
                  dtype == part.out_THD.scalar_type() && dtype == part.lse_TH.scalar_type(),
              "parts of attention are merged in fp32 or fp64");
  TORCH_CHECK(part.out_THD.sizes() == into.out_THD.sizes() &&
                  part.lse_TH.sizes() == into.lse_TH.sizes() && part.out_THD.is_contiguous() &&
                  into.out_THD.is_contiguous() && part.lse_TH.is_contiguous() &&
                  into.lse_TH.is_contiguous(),
              "parts of attention are contiguous and of one shape");
  if (!into.out_THD.is_cpu()) {
    MergeAttentionCuda(part, into);
  } else if (dtype == at::kDouble) {
    MergeRows<double>(part, into);
  } else {
    MergeRows<float>(part, into);
  }
}

}  // namespace osler
