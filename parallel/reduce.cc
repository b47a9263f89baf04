#include "parallel/reduce.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>

namespace osler {
namespace {

constexpr int64_t kBlock = 1024;        // elements whose accumulators stay in the first-level cache
constexpr int64_t kSliceMultiple = 64;  // elements; at least a cache line of the narrowest dtype

template <typename Acc>
struct Sum {
  Acc operator()(Acc a, Acc b) const { return a + b; }
};

template <typename Acc>
struct Max {
  // b != b: a NaN must not hide; a NaN in `a` stays because no comparison with it holds.
  Acc operator()(Acc a, Acc b) const { return (b > a || b != b) ? b : a; }
};

// T as stored, Acc as combined.
template <typename T, typename Acc, typename Combine>
void ReduceBlocks(absl::Span<const void* const> sources, int64_t count,
                  absl::Span<void* const> outs, Combine combine) {
  Acc acc[kBlock];
  T result[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) acc[i] = static_cast<Acc>(first[i]);
    for (size_t s = 1; s < sources.size(); ++s) {
      const T* source = static_cast<const T*>(sources[s]) + begin;
      for (int64_t i = 0; i < n; ++i) acc[i] = combine(acc[i], static_cast<Acc>(source[i]));
    }
    for (int64_t i = 0; i < n; ++i) result[i] = static_cast<T>(acc[i]);
    for (void* out : outs) {
      std::memcpy(static_cast<T*>(out) + begin, result, static_cast<size_t>(n) * sizeof(T));
    }
  }
}

template <typename T, typename Acc>
void ReduceFloats(ReduceOp op, absl::Span<const void* const> sources, int64_t count,
                  absl::Span<void* const> outs) {
  if (op == ReduceOp::kSum) {
    ReduceBlocks<T, Acc>(sources, count, outs, Sum<Acc>());
  } else {
    ReduceBlocks<T, Acc>(sources, count, outs, Max<Acc>());
  }
}

void ReduceInts(ReduceOp op, absl::Span<const void* const> sources, int64_t count,
                absl::Span<void* const> outs) {
  if (op == ReduceOp::kSum) {  // unsigned: wrapping is defined there
    ReduceBlocks<uint64_t, uint64_t>(sources, count, outs, Sum<uint64_t>());
  } else {
    ReduceBlocks<int64_t, int64_t>(sources, count, outs, Max<int64_t>());
  }
}

}  // namespace

void CheckCollectiveTensor(const at::Tensor& x, at::DeviceType device) {
  TORCH_CHECK(x.defined(), "a collective got an undefined tensor");
  TORCH_CHECK(x.device().type() == device, "a collective got a tensor on ", x.device(),
              ", its group takes them on ", device);
  TORCH_CHECK(x.is_contiguous(), "a collective got a non-contiguous tensor of shape ", x.sizes());
  const at::ScalarType dtype = x.scalar_type();
  TORCH_CHECK(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kLong || dtype == at::kBFloat16,
      "a collective got dtype ", dtype, ", it takes fp32, fp64, bf16 and int64");
}

void ReduceInOrder(at::ScalarType dtype, ReduceOp op, absl::Span<const void* const> sources,
                   int64_t count, absl::Span<void* const> outs) {
  switch (dtype) {
    case at::kFloat: return ReduceFloats<float, float>(op, sources, count, outs);
    case at::kDouble: return ReduceFloats<double, double>(op, sources, count, outs);
    case at::kBFloat16: return ReduceFloats<c10::BFloat16, float>(op, sources, count, outs);
    case at::kLong: return ReduceInts(op, sources, count, outs);
    default: TORCH_CHECK(false, "no reduction for dtype ", dtype);
  }
}

Slice SliceOf(int64_t count, int rank, int size) {
  const int64_t even = (count + size - 1) / size;
  const int64_t width = (even + kSliceMultiple - 1) / kSliceMultiple * kSliceMultiple;
  const int64_t begin = std::min(count, width * rank);
  return {begin, std::min(count, begin + width)};
}

}  // namespace osler
