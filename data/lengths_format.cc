#include "data/lengths_format.h"

#include "base/digest.h"
#include "base/errors.h"
#include "data/shard_record.h"

namespace osler {
namespace {

constexpr std::string_view kMagic = "OSLERLEN";
constexpr uint32_t kVersion = 1, kEntryBytes = 12;
constexpr size_t kDigestDigits = 64, kHeadBytes = 24 + 2 * kDigestDigits, kCrcBytes = 4;

}  // namespace

std::string EncodeLengths(const Lengths& lengths, const LengthsKey& key) {
  std::string bytes(kMagic);
  PutU32(&bytes, kVersion);
  PutU32(&bytes, kEntryBytes);
  PutU64(&bytes, lengths.size());
  bytes += key.data_digest + key.encoder_digest;
  for (const RecordLength& length : lengths) {
    PutU32(&bytes, length.tokens);
    PutU32(&bytes, length.first_target);
    PutU32(&bytes, length.last_target);
  }
  PutU32(&bytes, Crc32c(bytes));
  return bytes;
}

absl::StatusOr<Lengths> ParseLengths(std::string_view bytes, const LengthsKey& key) {
  if (bytes.size() < kHeadBytes + kCrcBytes || !bytes.starts_with(kMagic)) {
    return DataError("it is no length sidecar, or is cut short");
  }
  if (GetU32(bytes, bytes.size() - kCrcBytes) !=
      Crc32c(bytes.substr(0, bytes.size() - kCrcBytes))) {
    return DataError("it fails its checksum");
  }
  if (GetU32(bytes, 8) != kVersion || GetU32(bytes, 12) != kEntryBytes) {
    return DataError("it is of another version");
  }
  const auto records = static_cast<uint64_t>(key.records);
  const size_t room = bytes.size() - kHeadBytes - kCrcBytes;
  if (bytes.substr(24, kDigestDigits) != key.data_digest || GetU64(bytes, 16) != records ||
      room % kEntryBytes != 0 || room / kEntryBytes != records) {
    return DataError("it was made for other records");
  }
  if (bytes.substr(24 + kDigestDigits, kDigestDigits) != key.encoder_digest) {
    return DataError("it was made for another tokenizer or template");
  }
  Lengths lengths;
  lengths.reserve(records);
  for (size_t at = kHeadBytes; at < bytes.size() - kCrcBytes; at += kEntryBytes) {
    lengths.push_back({GetU32(bytes, at), GetU32(bytes, at + 4), GetU32(bytes, at + 8)});
  }
  return lengths;
}

}  // namespace osler
