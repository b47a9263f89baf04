// The header of a safetensors file: a strict walk over its JSON, then a check of every offset
// against the data.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"

namespace osler {

inline constexpr int64_t kLengthBytes = 8;              // the u64 before the header
inline constexpr int64_t kLargestHeader = 100'000'000;  // bytes, as in the reference implementation
inline constexpr int64_t kMostDimensions = 64;
inline constexpr char kMetadataKey[] = "__metadata__";

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // offset of the data section in the file
};

// `file` is the whole file. Errors name the tensor and the fault, not the file.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view file);

}  // namespace osler
