#include "data/shard_format.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr size_t kMaxParts = 2;  // ids and labels
constexpr size_t kDigestDigits = 64;
constexpr size_t kIndexHeadBytes = 24 + kDigestDigits, kIndexEntryBytes = 8;

uint64_t RoundUp(uint64_t value) { return (value + kPageBytes - 1) / kPageBytes * kPageBytes; }

bool AllZero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

std::string EncodeTable(const std::vector<TableEntry>& table) {
  std::string bytes;
  bytes.reserve(table.size() * kTableEntryBytes);
  for (const TableEntry& entry : table) {
    PutU64(&bytes, entry.header_offset);
    PutU32(&bytes, entry.header_bytes);
    PutU32(&bytes, static_cast<uint32_t>(entry.kind));
    PutU64(&bytes, entry.payload_bytes);
    PutU64(&bytes, entry.key_hash);
    PutU64(&bytes, entry.subject_hash);
    PutU32(&bytes, entry.tokens);
    PutU32(&bytes, 0);
  }
  return bytes;
}

}  // namespace

std::string ShardFileName(int64_t shard) { return absl::StrFormat("shard-%05d.osd", shard); }

absl::Status DamagedFile(std::string_view path, std::string_view what) {
  return DataError(
      absl::StrCat(absl::string_view(path.data(), path.size()), ": ",
                   absl::string_view(what.data(), what.size()),
                   "; restore the file from a copy or rebuild with `osler data build`"));
}

uint64_t NameHash(std::string_view name) {
  const std::string hex = Sha256Hex(name).substr(0, 16);
  uint64_t hash = 0;
  for (int byte = 7; byte >= 0; --byte) {
    hash = hash << 8 | std::stoul(hex.substr(static_cast<size_t>(byte) * 2, 2), nullptr, 16);
  }
  return hash;
}

std::string EncodeShardHead() {
  std::string head(kShardMagic);
  PutU32(&head, kShardVersion);
  head.resize(kPageBytes, '\0');
  return head;
}

std::string EncodeShardTail(uint64_t payload_end, std::string_view headers,
                            std::vector<TableEntry> table) {
  const uint64_t headers_offset = RoundUp(payload_end);
  for (TableEntry& entry : table) entry.header_offset += headers_offset;
  std::string tail(headers_offset - payload_end, '\0');
  tail += headers;
  const std::string rows = EncodeTable(table);
  const uint64_t table_offset = headers_offset + headers.size();
  std::string trailer(kTrailerMagic);
  PutU32(&trailer, kShardVersion);
  PutU32(&trailer, Crc32c(rows));
  PutU64(&trailer, table.size());
  PutU64(&trailer, payload_end);
  PutU64(&trailer, headers_offset);
  PutU64(&trailer, table_offset);
  PutU64(&trailer, table_offset + rows.size() + kTrailerBytes);
  PutU32(&trailer, 0);
  PutU32(&trailer, Crc32c(trailer));
  return tail + rows + trailer;
}

absl::StatusOr<ShardView> ShardView::Parse(std::string_view bytes, std::string path) {
  ShardView view(bytes, std::move(path));
  OSLER_RETURN_IF_ERROR(view.CheckTrailer());
  OSLER_RETURN_IF_ERROR(view.CheckTable());
  return view;
}

absl::Status ShardView::CheckTrailer() {
  if (bytes_.size() < kPageBytes + kTrailerBytes || !bytes_.starts_with(kShardMagic)) {
    return DamagedFile(path_, "is no shard file, or is cut short");
  }
  const std::string_view trailer = bytes_.substr(bytes_.size() - kTrailerBytes);
  if (!trailer.starts_with(kTrailerMagic))
    return DamagedFile(path_, "is cut short: its trailer is missing");
  if (GetU32(trailer, 60) != Crc32c(trailer.substr(0, 60))) {
    return DamagedFile(path_, "its trailer fails its checksum");
  }
  if (GetU32(bytes_, 8) != kShardVersion || GetU32(trailer, 8) != kShardVersion) {
    return DamagedFile(path_, absl::StrCat("is not of format version ", kShardVersion));
  }
  const uint64_t records = GetU64(trailer, 16);
  payload_end_ = GetU64(trailer, 24);
  headers_offset_ = GetU64(trailer, 32);
  table_offset_ = GetU64(trailer, 40);
  const uint64_t table_end = bytes_.size() - kTrailerBytes;
  const bool ordered = kPageBytes <= payload_end_ && payload_end_ <= headers_offset_ &&
                       headers_offset_ <= table_offset_ && table_offset_ <= table_end;
  if (GetU64(trailer, 48) != bytes_.size() || !ordered ||
      headers_offset_ != RoundUp(payload_end_) ||
      (table_end - table_offset_) % kTableEntryBytes != 0 ||
      (table_end - table_offset_) / kTableEntryBytes != records) {
    return DamagedFile(path_, "its trailer's offsets do not fit its size");
  }
  records_ = static_cast<int64_t>(records);
  return absl::OkStatus();
}

absl::Status ShardView::CheckTable() const {
  if (!AllZero(bytes_.substr(12, kPageBytes - 12)) ||
      !AllZero(bytes_.substr(payload_end_, headers_offset_ - payload_end_))) {
    return DamagedFile(path_, "its padding is not zero");
  }
  const std::string_view trailer = bytes_.substr(bytes_.size() - kTrailerBytes);
  const std::string_view rows =
      bytes_.substr(table_offset_, bytes_.size() - kTrailerBytes - table_offset_);
  if (GetU32(trailer, 12) != Crc32c(rows))
    return DamagedFile(path_, "its record table fails its checksum");
  uint64_t next_header = headers_offset_, payload = payload_end_ - kPageBytes;
  for (int64_t i = 0; i < records_; ++i) {
    const TableEntry row = entry(i);
    const bool known = row.kind >= RecordKind::kChat && row.kind <= RecordKind::kText;
    if (!known || row.header_offset != next_header ||
        row.header_bytes > table_offset_ - next_header || row.payload_bytes > payload) {
      return DamagedFile(path_,
                         absl::StrCat("row ", i, " of its record table does not fit the file"));
    }
    next_header += row.header_bytes;
    payload -= row.payload_bytes;
  }
  if (next_header != table_offset_ || payload != 0) {
    return DamagedFile(path_, "its record table does not cover the file");
  }
  return absl::OkStatus();
}

TableEntry ShardView::entry(int64_t index) const {
  const std::string_view row = bytes_.substr(
      table_offset_ + static_cast<uint64_t>(index) * kTableEntryBytes, kTableEntryBytes);
  return {GetU64(row, 0),  GetU32(row, 8),  static_cast<RecordKind>(GetU32(row, 12)),
          GetU64(row, 16), GetU64(row, 24), GetU64(row, 32),
          GetU32(row, 40)};
}

absl::StatusOr<RecordContents> ShardView::Read(int64_t index) const {
  absl::StatusOr<RecordContents> contents = ReadUnnamed(index);
  if (contents.ok()) return contents;
  return DamagedFile(
      path_, absl::StrCat("record ", index, " of this file: ", contents.status().message()));
}

absl::StatusOr<RecordContents> ShardView::ReadUnnamed(int64_t index) const {
  const TableEntry row = entry(index);
  OSLER_ASSIGN_OR_RETURN(RecordHeader header,
                         ParseRecordHeader(bytes_.substr(row.header_offset, row.header_bytes)));
  uint64_t stored = 0;
  for (const StoredPart& part : header.parts)
    stored += std::min(part.stored, row.payload_bytes + 1);
  // Before anything is decoded: many parts over the same bytes could ask for more memory than the
  // file has bytes.
  if (stored != row.payload_bytes || header.parts.size() > kMaxParts) {
    return DataError("its header contradicts the record table");
  }
  std::vector<RawPart> parts;
  for (const StoredPart& part : header.parts) {
    OSLER_ASSIGN_OR_RETURN(RawPart raw, ReadPart(bytes_, part, kPageBytes, payload_end_));
    parts.push_back(std::move(raw));
  }
  RecordContents contents;
  OSLER_ASSIGN_OR_RETURN(contents.body, DecodeBody(parts));
  if (contents.body.kind() != row.kind || row.tokens != contents.body.input_ids.size()) {
    return DataError("its parts contradict the record table");
  }
  contents.id = std::move(header.id);
  contents.subject = std::move(header.subject);
  return contents;
}

std::string EncodeIndex(const ShardIndex& index) {
  std::string bytes(kIndexMagic);
  PutU32(&bytes, kShardVersion);
  PutU32(&bytes, kIndexEntryBytes);
  PutU64(&bytes, index.entries.size());
  bytes += index.build_id;
  for (const IndexEntry& entry : index.entries) {
    PutU32(&bytes, entry.shard);
    PutU32(&bytes, entry.entry);
  }
  PutU32(&bytes, Crc32c(bytes));
  return bytes;
}

absl::StatusOr<ShardIndex> ParseIndex(std::string_view bytes, const std::string& path) {
  if (bytes.size() < kIndexHeadBytes + 4 || !bytes.starts_with(kIndexMagic)) {
    return DamagedFile(path, "is no index, or is cut short");
  }
  if (GetU32(bytes, bytes.size() - 4) != Crc32c(bytes.substr(0, bytes.size() - 4))) {
    return DamagedFile(path, "fails its checksum");
  }
  const uint64_t room = bytes.size() - kIndexHeadBytes - 4;
  if (GetU32(bytes, 8) != kShardVersion || GetU32(bytes, 12) != kIndexEntryBytes ||
      room % kIndexEntryBytes != 0 || GetU64(bytes, 16) != room / kIndexEntryBytes) {
    return DamagedFile(path, "its size does not fit its record count");
  }
  ShardIndex index;
  index.build_id = bytes.substr(24, kDigestDigits);
  index.entries.reserve(room / kIndexEntryBytes);
  for (size_t at = kIndexHeadBytes; at < bytes.size() - 4; at += kIndexEntryBytes) {
    index.entries.push_back({GetU32(bytes, at), GetU32(bytes, at + 4)});
  }
  return index;
}

}  // namespace osler
