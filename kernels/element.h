// The element types of the CPU kernels, without torch: what an *_isa.cc file is told about a raw
// pointer.
#pragma once

namespace osler {

// bf16 is stored, never summed: sums of it are fp32.
enum class Element { kFloat, kDouble, kBFloat16 };
inline constexpr int kElements = 3;

}  // namespace osler
