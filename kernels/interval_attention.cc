#include "kernels/interval_attention.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace osler {

MaskIntervals CausalDocumentIntervals(const std::vector<int32_t>& doc_starts, int64_t length,
                                      std::optional<int64_t> window) {
  TORCH_CHECK(length == 0 || (!doc_starts.empty() && doc_starts[0] == 0),
              "the first document must start at 0");
  for (size_t d = 0; d < doc_starts.size(); ++d) {
    TORCH_CHECK(doc_starts[d] < length && (d == 0 || doc_starts[d - 1] < doc_starts[d]),
                "document ", d, " starts at ", doc_starts[d], ", out of order or outside the ",
                length, " tokens");
  }
  TORCH_CHECK(!window || *window > 0, "the attention window must be positive");
  MaskIntervals mask{at::empty({length}, at::kInt), at::empty({length}, at::kInt)};
  auto* lo = mask.lo_T.mutable_data_ptr<int32_t>();
  auto* hi = mask.hi_T.mutable_data_ptr<int32_t>();
  size_t next = 0;
  int64_t start = 0;
  for (int64_t i = 0; i < length; ++i) {
    if (next < doc_starts.size() && doc_starts[next] == i) start = doc_starts[next++];
    lo[i] = static_cast<int32_t>(window ? std::max(start, i - *window + 1) : start);
    hi[i] = static_cast<int32_t>(i + 1);
  }
  return mask;
}

}  // namespace osler
