// The arithmetic of every all-reduce, apart from how bytes travel, so that all back-ends give the
// same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/types/span.h"
#include "parallel/communicator.h"

namespace osler {

// Throws (a programmer's error) unless `x` is a contiguous tensor on `device` of a dtype that
// collectives take.
void CheckCollectiveTensor(const at::Tensor& x, at::DeviceType device);

// outs[*][i] = sources[0][i] op sources[1][i] op …, in that order, for i < count; bf16 is combined
// in fp32 and rounded once. An output may be the same memory as a source. Thread-safe on disjoint
// memory.
void ReduceInOrder(at::ScalarType dtype, ReduceOp op, absl::Span<const void* const> sources,
                   int64_t count, absl::Span<void* const> outs);

// Elements [begin, end) of `count` that rank `rank` of `size` reduces: near-equal slices that start
// on cache lines.
struct Slice {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};
Slice SliceOf(int64_t count, int rank, int size);

}  // namespace osler
