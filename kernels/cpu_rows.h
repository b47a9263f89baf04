// What the row kernels of this folder share on torch's side of the CPU. Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include <cstdint>

#include "kernels/element.h"
#include "kernels/norm_style.h"

namespace osler {

// Throws for anything but fp32, fp64 and bf16.
Element ElementOf(const at::Tensor& x);

// What values of x are summed in: fp64 for fp64, fp32 otherwise.
at::ScalarType SumTypeOf(const at::Tensor& x);

// What a normalised value is multiplied by, in x's sum type: w or 1 + w.
at::Tensor Gain(const at::Tensor& weight_D, NormStyle style, const at::Tensor& x);

// Rows [0, rows) in parallel, at least about `grain` values of `width` a thread.
void ForRows(int64_t rows, int64_t width, c10::function_ref<void(int64_t from, int64_t to)> body);

// As ForRows, with a sum [width] over all rows: body adds rows [from, to) to the zeroed sum it is
// given. Blocks of rows and the order in which their sums are added depend on `rows` alone, so the
// result has the same bits for any number of threads. Returns [width] in x's sum type.
at::Tensor SumOverRows(int64_t rows, int64_t width, const at::Tensor& x,
                       c10::function_ref<void(void* sum, int64_t from, int64_t to)> body);

}  // namespace osler
