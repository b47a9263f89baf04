// The kernel behind Linear for few rows, without torch: rows of x times the transposed weights.
#pragma once

#include <cstdint>

namespace osler {

enum class WeightType { kFp32, kBf16 };

struct LinearRowsArguments {
  const float* x;      // [rows, depth], dense
  const void* weight;  // [width, depth], dense
  float* out;          // [rows, width], dense
  int64_t rows, depth, width;
};

// Writes columns [from, to) of out. Each value is one sum over depth in a fixed order.
using LinearRowsKernel = void (*)(const LinearRowsArguments& args, int64_t from, int64_t to);

}  // namespace osler
