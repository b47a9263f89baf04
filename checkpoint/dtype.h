// The element types of safetensors files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace osler {

// Bits of one element of a dtype that the format knows ("F32" → 32, "F4" → 4); nullopt for any
// other name.
std::optional<int64_t> DtypeBits(std::string_view dtype);

// Bytes of a row-major tensor; nullopt when the dtype is unknown, a dimension is negative, the
// product of the dimensions that are not 0 overflows (strides would), or the bits do not fill whole
// bytes.
std::optional<int64_t> TensorBytes(std::string_view dtype, const std::vector<int64_t>& shape);

// A name from a file, fit for a message: quoted, cut to 120 bytes, control bytes replaced by '?'.
std::string Printable(std::string_view name);

}  // namespace osler
