#include "checkpoint/dtype.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <array>

#include "checkpoint/safetensors.h"

namespace osler {
namespace {

struct Mapped {
  std::string_view name;
  at::ScalarType type;
};
constexpr std::array<Mapped, 10> kMapped = {{{"F64", at::kDouble},
                                             {"F32", at::kFloat},
                                             {"F16", at::kHalf},
                                             {"BF16", at::kBFloat16},
                                             {"I64", at::kLong},
                                             {"I32", at::kInt},
                                             {"I16", at::kShort},
                                             {"I8", at::kChar},
                                             {"U8", at::kByte},
                                             {"BOOL", at::kBool}}};

struct Bits {
  std::string_view name;
  int64_t bits;
};
constexpr std::array<Bits, 22> kBits = {
    {{"BOOL", 8},        {"U8", 8},         {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},
     {"F8_E8M0", 8},     {"I16", 16},       {"U16", 16}, {"F16", 16},    {"BF16", 16},
     {"I32", 32},        {"U32", 32},       {"F32", 32}, {"I64", 64},    {"U64", 64},
     {"F64", 64},        {"C64", 64},       {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6},
     {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}}};

}  // namespace

std::optional<int64_t> DtypeBits(std::string_view dtype) {
  for (const Bits& one : kBits) {
    if (one.name == dtype) return one.bits;
  }
  return std::nullopt;
}

std::optional<int64_t> TensorBytes(std::string_view dtype, const std::vector<int64_t>& shape) {
  const std::optional<int64_t> bits = DtypeBits(dtype);
  if (!bits.has_value()) return std::nullopt;
  int64_t product = *bits;
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    empty = empty || dim == 0;
    if (dim != 0 && __builtin_mul_overflow(product, dim, &product)) return std::nullopt;
  }
  if (empty) return 0;
  if (product % 8 != 0) return std::nullopt;
  return product / 8;
}

std::string Printable(std::string_view name) {
  constexpr size_t kLongest = 120;
  std::string text(name.substr(0, kLongest));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return fmt::format("'{}{}'", text, name.size() > kLongest ? "…" : "");
}

absl::StatusOr<at::ScalarType> ScalarTypeOf(const std::string& dtype) {
  for (const Mapped& one : kMapped) {
    if (one.name == dtype) return one.type;
  }
  return absl::UnimplementedError(
      fmt::format("dtype {} has no tensor type here (F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL have)",
                  Printable(dtype)));
}

std::string DtypeName(at::ScalarType type) {
  for (const Mapped& one : kMapped) {
    if (one.type == type) return std::string(one.name);
  }
  return "";
}

}  // namespace osler
