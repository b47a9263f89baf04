// The bytes of a length sidecar (docs/shard.md). Pure functions, thread-safe; any bytes give
// lengths or a data error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "data/lengths.h"

namespace osler {

// What a sidecar must have been made for.
struct LengthsKey {
  std::string data_digest;     // ShardReader::digest()
  std::string encoder_digest;  // SHA-256 of RecordEncoder::digest(), 64 hex digits
  int64_t records = 0;
};

std::string EncodeLengths(const Lengths& lengths, const LengthsKey& key);
// The message says why the bytes are no use, without a path.
absl::StatusOr<Lengths> ParseLengths(std::string_view bytes, const LengthsKey& key);

}  // namespace osler
