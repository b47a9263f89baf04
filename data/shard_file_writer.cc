#include "data/shard_file_writer.h"

#include <utility>

#include "base/status_macros.h"

namespace osler {

ShardFileWriter::ShardFileWriter(Fs& fs, std::string directory, std::string name)
    : fs_(&fs), path_(JoinPath(directory, name)), name_(std::move(name)), buffer_(EncodeShardHead()) {}

uint32_t ShardFileWriter::Add(RecordHeader header, const std::vector<std::string>& stored, RecordKind kind,
                              uint32_t tokens) {
  const uint64_t begin = payload_end_;
  for (size_t i = 0; i < stored.size(); ++i) {
    header.parts[i].offset = payload_end_;
    buffer_ += stored[i];
    payload_end_ += stored[i].size();
  }
  const std::string bytes = EncodeRecordHeader(header);
  // Offsets in the table become absolute when the payload's end is known (EncodeShardTail).
  table_.push_back({headers_.size(), static_cast<uint32_t>(bytes.size()), kind, payload_end_ - begin,
                    NameHash(header.id), NameHash(header.subject), tokens});
  headers_ += bytes;
  return static_cast<uint32_t>(table_.size() - 1);
}

absl::Status ShardFileWriter::Flush() {
  OSLER_ASSIGN_OR_RETURN(const auto file, fs_->Open(path_, OpenMode::kAppend));
  OSLER_RETURN_IF_ERROR(file->Append(buffer_));
  OSLER_RETURN_IF_ERROR(file->Close());
  digest_->Update(buffer_);
  written_ += buffer_.size();
  buffer_.clear();
  return absl::OkStatus();
}

absl::StatusOr<ManifestFile> ShardFileWriter::Finish() {
  buffer_ += EncodeShardTail(payload_end_, headers_, table_);
  headers_.clear();
  OSLER_RETURN_IF_ERROR(Flush());
  OSLER_ASSIGN_OR_RETURN(const auto file, fs_->Open(path_, OpenMode::kAppend));
  OSLER_RETURN_IF_ERROR(file->Sync());
  OSLER_RETURN_IF_ERROR(file->Close());
  return ManifestFile{name_, static_cast<int64_t>(written_), digest_->Hex(),
                      static_cast<int64_t>(table_.size())};
}

}  // namespace osler
