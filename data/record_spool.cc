#include "data/record_spool.h"

#include <utility>

#include "base/digest.h"
#include "base/status_macros.h"

namespace osler {
namespace {

constexpr size_t kBufferBytes = 4 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<RecordSpool>> RecordSpool::Create(Fs& fs, std::string path) {
  OSLER_ASSIGN_OR_RETURN(auto file, fs.Open(path, OpenMode::kTruncate));
  return std::unique_ptr<RecordSpool>(new RecordSpool(fs, std::move(path), std::move(file)));
}

absl::Status RecordSpool::Append(const CleanRecord& record, const std::vector<RawPart>& parts) {
  SpooledRecord spooled;
  spooled.header.id = record.id();
  spooled.header.subject = record.subject();
  const uint64_t begin = end_;
  std::string stored;
  for (const RawPart& part : parts) {
    const PartCodec codec = compressor_.Encode(part, &stored);
    spooled.header.parts.push_back(
        {part.kind, part.type, codec, Crc32c(stored), end_, stored.size(), part.bytes.size()});
    buffer_ += stored;
    end_ += stored.size();
  }
  spooled.bytes = static_cast<int64_t>(end_ - begin);
  spooled.kind = record.body().kind();
  spooled.tokens = static_cast<uint32_t>(record.body().input_ids.size());
  records_.push_back(std::move(spooled));
  return buffer_.size() < kBufferBytes ? absl::OkStatus() : Flush();
}

absl::Status RecordSpool::Flush() {
  OSLER_RETURN_IF_ERROR(file_->Append(buffer_));
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status RecordSpool::Finish() {
  OSLER_RETURN_IF_ERROR(Flush());
  OSLER_RETURN_IF_ERROR(file_->Close());
  OSLER_ASSIGN_OR_RETURN(mapped_, fs_.Map(path_));
  return absl::OkStatus();
}

absl::Status RecordSpool::Remove() {
  mapped_.reset();
  return fs_.Remove(path_);
}

std::string_view RecordSpool::Payload(const SpooledRecord& record) const {
  const uint64_t begin = record.header.parts.empty() ? 0 : record.header.parts[0].offset;
  return mapped_->data().substr(begin, static_cast<size_t>(record.bytes));
}

}  // namespace osler
