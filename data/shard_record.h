// How one record is laid out in a shard file: its parts (messages, ids, labels, text) and its
// header. docs/shard.md is the byte-level page. Pure functions of bytes, thread-safe; nothing here
// trusts a length or an offset it reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/record.h"

namespace osler {

enum class PartKind : uint8_t { kMessages = 1, kInputIds = 2, kLabels = 3, kText = 4 };
enum class PartType : uint8_t { kJson = 1, kInt32 = 2, kUtf8 = 3 };
enum class PartCodec : uint8_t { kRaw = 0, kZstd = 1 };

// A part as bytes before its codec.
struct RawPart {
  PartKind kind;
  PartType type;
  std::string bytes;
};

// Where a part stands in the file and how it was stored.
struct StoredPart {
  PartKind kind = PartKind::kMessages;
  PartType type = PartType::kJson;
  PartCodec codec = PartCodec::kRaw;
  uint32_t crc = 0;     // CRC-32C of the stored bytes
  uint64_t offset = 0;  // from the start of the file
  uint64_t stored = 0;  // bytes in the file
  uint64_t raw = 0;     // bytes after decoding
};

struct RecordHeader {
  std::string id, subject;
  std::vector<StoredPart> parts;
};

// What a record holds, outside the types that only the gate and ShardReader may make.
struct RecordContents {
  std::string id, subject;
  RecordBody body;
};

inline constexpr size_t kRecordHeaderBytes = 16, kPartEntryBytes = 32;
// A stored part may grow to this many times its size when decoded (or to kFreeExpansion whatever
// its size): a bound on what a damaged or hostile file can make a reader allocate. The writer keeps
// to it by storing such parts raw.
inline constexpr uint64_t kMaxExpansion = 256, kFreeExpansion = 1 << 20;

// Data error if ids and labels differ in number or a message or text is not UTF-8.
absl::StatusOr<std::vector<RawPart>> EncodeBody(const RecordBody& body);
absl::StatusOr<RecordBody> DecodeBody(const std::vector<RawPart>& parts);

// Compresses JSON and text parts when that makes them smaller. Holds a zstd context: not
// thread-safe.
class PartCompressor {
 public:
  PartCompressor();
  ~PartCompressor();
  // Returns the codec; `stored` receives the bytes to write.
  PartCodec Encode(const RawPart& part, std::string* stored);

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Checks bounds against the payload region [begin, end) of `file`, verifies the CRC and decodes.
absl::StatusOr<RawPart> ReadPart(std::string_view file, const StoredPart& part, uint64_t begin,
                                 uint64_t end);

std::string EncodeRecordHeader(const RecordHeader& header);
absl::StatusOr<RecordHeader> ParseRecordHeader(std::string_view bytes);

// Little-endian integers at an offset the caller has checked.
uint32_t GetU32(std::string_view bytes, size_t offset);
uint64_t GetU64(std::string_view bytes, size_t offset);
void PutU32(std::string* bytes, uint32_t value);
void PutU64(std::string* bytes, uint64_t value);

}  // namespace osler
