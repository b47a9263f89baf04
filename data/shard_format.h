// One shard file as bytes, and the index. docs/shard.md is the byte-level page.
//
//   head (4096 bytes) · payload (padded to 4096) · record headers · record table · trailer
//
// ShardView checks everything that can be checked without touching the payload when it is made, and
// each part's CRC-32C when it is read. Any bytes at all give a data error, never a crash or a large
// allocation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/shard_record.h"

namespace osler {

inline constexpr uint32_t kShardVersion = 1;
inline constexpr uint64_t kPageBytes = 4096, kTableEntryBytes = 48, kTrailerBytes = 64;
inline constexpr std::string_view kShardMagic = "OSLERSHD", kTrailerMagic = "OSLERFTR",
                                  kIndexMagic = "OSLERIDX";

inline constexpr char kIndexName[] = "index.bin";
inline constexpr char kCertificateName[] = "certificate.json";
inline constexpr char kReportName[] = "report.json";
inline constexpr char kManifestName[] = "manifest.json";
inline constexpr char kLengthsDirectory[] = "lengths";

// "shard-00017.osd"
std::string ShardFileName(int64_t shard);

// A data error "PATH: WHAT" that says to rebuild.
absl::Status DamagedFile(std::string_view path, std::string_view what);

// One row of the record table: what a scan needs without reading headers or payload.
struct TableEntry {
  uint64_t header_offset = 0;
  uint32_t header_bytes = 0;
  RecordKind kind = RecordKind::kChat;
  uint64_t payload_bytes = 0;  // stored
  uint64_t key_hash = 0;       // of the id
  uint64_t subject_hash = 0;
  uint32_t tokens = 0;  // of a token record; 0: not known without a tokenizer
};

// The first 8 bytes of SHA-256, little-endian.
uint64_t NameHash(std::string_view name);

// Everything of a shard file after the payload: padding, headers, table, trailer.
std::string EncodeShardTail(uint64_t payload_end, std::string_view headers,
                            std::vector<TableEntry> table);
std::string EncodeShardHead();  // the first 4096 bytes

// A view of a shard file's bytes, which must outlive it. Immutable and thread-safe.
class ShardView {
 public:
  // `path` names the file in errors.
  static absl::StatusOr<ShardView> Parse(std::string_view bytes, std::string path);
  int64_t records() const { return records_; }
  TableEntry entry(int64_t index) const;  // PRE: 0 ≤ index < records()
  absl::StatusOr<RecordContents> Read(int64_t index) const;
  const std::string& path() const { return path_; }

 private:
  ShardView(std::string_view bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {}
  absl::Status CheckTrailer();
  absl::Status CheckTable() const;
  absl::StatusOr<RecordContents> ReadUnnamed(int64_t index) const;

  std::string_view bytes_;
  std::string path_;
  int64_t records_ = 0;
  uint64_t payload_end_ = 0, headers_offset_ = 0, table_offset_ = 0;
};

// Where a record stands: shard file and row of its table.
struct IndexEntry {
  uint32_t shard = 0, entry = 0;
  bool operator==(const IndexEntry&) const = default;
};

struct ShardIndex {
  std::string build_id;             // 64 hex digits
  std::vector<IndexEntry> entries;  // in source order
};

std::string EncodeIndex(const ShardIndex& index);
absl::StatusOr<ShardIndex> ParseIndex(std::string_view bytes, const std::string& path);

}  // namespace osler
