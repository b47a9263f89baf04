#include "data/shard_file_writer.h"

#include <utility>

#include "base/status_macros.h"

namespace osler {
namespace {

constexpr size_t kBufferBytes = 4 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<ShardFileWriter>> ShardFileWriter::Create(
    Fs& fs, const std::string& directory, std::string name) {
  OSLER_ASSIGN_OR_RETURN(auto file, fs.Open(JoinPath(directory, name), OpenMode::kTruncate));
  return std::unique_ptr<ShardFileWriter>(new ShardFileWriter(std::move(name), std::move(file)));
}

absl::StatusOr<uint32_t> ShardFileWriter::Add(const SpooledRecord& record,
                                              std::string_view payload) {
  RecordHeader header = record.header;
  uint64_t offset = payload_end_;
  for (StoredPart& part : header.parts) {
    part.offset = offset;
    offset += part.stored;
  }
  buffer_ += payload;
  payload_end_ += payload.size();
  const std::string bytes = EncodeRecordHeader(header);
  // Offsets in the table become absolute when the payload's end is known (EncodeShardTail).
  table_.push_back({headers_.size(), static_cast<uint32_t>(bytes.size()), record.kind,
                    payload.size(), NameHash(header.id), NameHash(header.subject), record.tokens});
  headers_ += bytes;
  if (buffer_.size() >= kBufferBytes) OSLER_RETURN_IF_ERROR(Flush());
  return static_cast<uint32_t>(table_.size() - 1);
}

absl::Status ShardFileWriter::Flush() {
  OSLER_RETURN_IF_ERROR(file_->Append(buffer_));
  digest_.Update(buffer_);
  written_ += buffer_.size();
  buffer_.clear();
  return absl::OkStatus();
}

absl::StatusOr<ManifestFile> ShardFileWriter::Finish() {
  buffer_ += EncodeShardTail(payload_end_, headers_, table_);
  OSLER_RETURN_IF_ERROR(Flush());
  OSLER_RETURN_IF_ERROR(file_->Sync());
  OSLER_RETURN_IF_ERROR(file_->Close());
  return ManifestFile{name_, static_cast<int64_t>(written_), digest_.Hex(),
                      static_cast<int64_t>(table_.size())};
}

}  // namespace osler
